import pytest

from finetune import head
from inference.families import Family
from inference.loading import load_base

FIELDS = ("log_probs", "entropy", "mean_logits", "is_top1", "label_mask")


@pytest.mark.parametrize("fixture", ["tiny_llama_family", "tiny_gemma_family"])
@pytest.mark.parametrize("count", [None, 7])
def test_the_direct_head_computes_what_trls_does(fixture, count, request):
    """Values, loss and gradients, on padded rows with ignored positions."""
    import torch
    from trl.trainer.utils import add_fused_lm_head

    family: Family = request.getfixturevalue(fixture)
    model = load_base(family)
    add_fused_lm_head(model, outputs=("log_probs", "entropy", "mean_logits", "is_top1"))
    torch.manual_seed(0)
    ids = torch.randint(5, 500, (3, 11))
    labels = ids.clone()
    labels[0, :6], labels[1, 8:], labels[2, ::2] = -100, -100, -100
    mask = torch.ones_like(ids)
    mask[1, 8:] = 0
    found = []
    for install in (False, True):
        if install:
            assert head.install(model)
            assert head.install(model)  # a second time changes nothing
        model.zero_grad()
        out = model(input_ids=ids, attention_mask=mask, labels=labels, fused_lm_head=True, num_items_in_batch=count)
        out.loss.backward()
        gradients = torch.cat([w.grad.flatten() for w in model.parameters() if w.grad is not None])
        found.append((out, gradients))
    (ours, our_gradients), (theirs, their_gradients) = found[1], found[0]
    for field in FIELDS:
        left, right = getattr(ours, field), getattr(theirs, field)
        assert torch.allclose(left.float(), right.float(), atol=1e-5), field
    assert float(ours.loss) == pytest.approx(float(theirs.loss), abs=1e-5)
    assert torch.allclose(our_gradients, their_gradients, atol=1e-5)
    assert model(input_ids=ids).logits.shape == (3, 11, model.config.vocab_size)


def test_models_that_transform_their_logits_keep_trls_head(tiny_llama_family):
    model = load_base(tiny_llama_family)
    model.config.final_logit_softcapping = 30.0
    assert not head.install(model)
