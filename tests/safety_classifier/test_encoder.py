"""The Flax encoder against PyTorch's BERT, and the fast matrix products against the plain ones."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from runs.errors import UserError
from safety_classifier.encoder import Encoder, EncoderConfig
from safety_classifier.precision import dot, quantise, quantised_dot
from safety_classifier.pretrained import BUNDLED, encoder_config, encoder_folder, load_encoder


def run(encoder, ids, types, length, precision="float32"):
    return np.asarray(encoder(encoder.embed_words(ids), types, length, precision=precision))


def inputs(vocabulary, rows=4, size=24, seed=0):
    rng = np.random.default_rng(seed)
    length = np.array([size, 10, 7, 1][:rows], np.int32)
    ids = rng.integers(5, vocabulary, (rows, size)).astype(np.int32)
    types = np.zeros_like(ids)
    types[:, size // 3 :] = 1
    return ids, types, length, np.arange(size) < length[:, None]


def torch_vectors(model, ids, types, mask):
    import torch

    with torch.no_grad():
        return model(
            torch.tensor(ids, dtype=torch.long),
            attention_mask=torch.tensor(mask.astype(np.int64)),
            token_type_ids=torch.tensor(types, dtype=torch.long),
        ).last_hidden_state.numpy()


def test_minilm_equals_pytorch_to_1e_5():
    from transformers import BertModel

    folder = encoder_folder(BUNDLED)
    config = encoder_config(folder)
    encoder = Encoder(config, rngs=nnx.Rngs(0))
    load_encoder(encoder, folder)
    ids, types, length, mask = inputs(config.vocab_size)
    reference = torch_vectors(BertModel.from_pretrained(folder).eval(), ids, types, mask)
    assert np.abs(run(encoder, ids, types, length) - reference)[mask].max() < 1e-5
    # bfloat16 products change the third digit, not the direction
    narrow = run(encoder, ids, types, length, "bfloat16")[mask]
    cosine = (
        (narrow * reference[mask]).sum(-1) / np.linalg.norm(narrow, axis=-1) / np.linalg.norm(reference[mask], axis=-1)
    )
    assert cosine.min() > 0.999


def test_any_bert_checkpoint_loads(tmp_path):
    """Another size, with the tensor names of BertForMaskedLM (prefix ``bert.``), as BERT-base has them."""
    import torch
    from transformers import BertConfig, BertForMaskedLM

    torch.manual_seed(0)
    model = BertForMaskedLM(
        BertConfig(
            vocab_size=99,
            hidden_size=24,
            num_hidden_layers=2,
            num_attention_heads=3,
            intermediate_size=40,
            max_position_embeddings=32,
        )
    ).eval()
    model.save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    config = encoder_config(encoder_folder(str(tmp_path)))
    encoder = Encoder(config, rngs=nnx.Rngs(0))
    load_encoder(encoder, tmp_path)
    ids, types, length, mask = inputs(99)
    assert np.abs(run(encoder, ids, types, length) - torch_vectors(model.bert, ids, types, mask))[mask].max() < 1e-5


def test_padding_changes_nothing():
    config = EncoderConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
    )
    encoder = Encoder(config, rngs=nnx.Rngs(0))
    ids, types, length, mask = inputs(50)
    wider = [np.pad(array, ((0, 0), (0, 8)), constant_values=7) for array in (ids, types % 2)]
    vectors = run(encoder, wider[0], np.minimum(wider[1], 1), length)[:, : ids.shape[1]]
    np.testing.assert_allclose(vectors[mask], run(encoder, ids, types, length)[mask], atol=1e-6)


def test_a_checkpoint_of_another_architecture_is_refused(tmp_path):
    for name in ("model.safetensors", "tokenizer.json"):
        (tmp_path / name).write_text("")
    (tmp_path / "config.json").write_text('{"model_type": "t5"}')
    with pytest.raises(UserError, match="t5"):
        encoder_config(encoder_folder(str(tmp_path)))


def test_an_incomplete_checkpoint_names_what_is_missing(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"model\.safetensors, tokenizer\.json"):
        encoder_folder(str(tmp_path))


@pytest.mark.parametrize("rows", [(32,), (3, 16), (7,)])
def test_gradients_of_the_fast_product_are_those_of_the_plain_one(rows):
    """Also where the row count is no multiple of 16, which takes the other transpose."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((*rows, 24)), jnp.float32)
    kernel = jnp.asarray(rng.standard_normal((24, 8)), jnp.float32)
    target = jnp.asarray(rng.standard_normal((*rows, 8)), jnp.float32)

    def loss(precision):
        return lambda a, b: jnp.sum(dot(a, b, precision) * target)

    exact = jax.grad(loss("float32"), (0, 1))(x, kernel)
    fast = jax.grad(loss("bfloat16"), (0, 1))(x, kernel)
    for one, other in zip(exact, fast, strict=True):
        assert np.abs(one - other).max() < 0.02 * np.abs(one).max()


def test_quantised_product_is_close_and_exact_on_its_grid():
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((5, 64)), jnp.float32)
    kernel = jnp.asarray(rng.standard_normal((64, 16)), jnp.float32)
    stored, scale = quantise(kernel)
    error = quantised_dot(x, stored, scale) - x @ kernel
    assert float(jnp.abs(error).max()) < 0.03 * float(jnp.abs(x @ kernel).max())
    grid = jnp.asarray([[127.0, -64.0, 3.0]])
    whole, unit = jnp.asarray([[2], [1], [-5]], jnp.int8), jnp.asarray([0.5])
    assert float(quantised_dot(grid, whole, unit)[0, 0]) == pytest.approx((254 - 64 - 15) * 0.5, rel=1e-6)
