"""How the page looks: Gradio's theme with system fonts (nothing is fetched), and our style sheet and script."""

from __future__ import annotations

from pathlib import Path

import gradio as gr

ASSETS = Path(__file__).parent / "assets"
_SANS = ["ui-sans-serif", "system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif"]
_MONO = ["ui-monospace", "SF Mono", "Menlo", "Consolas", "DejaVu Sans Mono", "monospace"]
_BLUE = gr.themes.Color(
    "#eef6fb", "#d9ebf6", "#b3d6ec", "#80badd", "#3f96c8", "#0067a5", "#005a91", "#004a78", "#003b60", "#002c48",
    "#001d30",
)  # fmt: skip


def theme() -> gr.themes.Base:
    """White cards on a faint ground, one blue, generous radii; dark mode follows the reader's system."""
    made = gr.themes.Base(
        primary_hue=_BLUE,
        neutral_hue=gr.themes.colors.slate,
        font=_SANS,
        font_mono=_MONO,
        spacing_size=gr.themes.sizes.spacing_md,
        radius_size=gr.themes.sizes.radius_md,
        text_size=gr.themes.sizes.text_md,
    )
    return made.set(
        body_background_fill="#f7f8fa",
        body_background_fill_dark="#10151c",
        body_text_color="#1d2733",
        body_text_color_dark="#e6eaef",
        body_text_color_subdued="#5a6573",
        body_text_color_subdued_dark="#a3aebb",
        background_fill_primary="#ffffff",
        background_fill_primary_dark="#171e27",
        background_fill_secondary="#f7f8fa",
        background_fill_secondary_dark="#10151c",
        block_background_fill="#ffffff",
        block_background_fill_dark="#171e27",
        block_border_color="#e2e6eb",
        block_border_color_dark="#2a3441",
        border_color_primary="#d5dbe2",
        border_color_primary_dark="#34404f",
        block_label_text_color="#46515e",
        block_label_text_color_dark="#b4bfcb",
        block_title_text_color="#46515e",
        block_title_text_color_dark="#b4bfcb",
        block_info_text_color="#5a6573",
        block_info_text_color_dark="#a3aebb",
        block_title_text_weight="500",
        block_title_text_size="*text_sm",
        input_background_fill="#ffffff",
        input_background_fill_dark="#10151c",
        input_border_width="1px",
        input_border_color="#c9d1da",
        input_border_color_dark="#3b4757",
        input_border_color_focus="#0067a5",
        input_border_color_focus_dark="#6db7e4",
        input_placeholder_color="#697482",
        input_placeholder_color_dark="#8f9bab",
        button_primary_background_fill="*primary_500",
        button_primary_background_fill_hover="*primary_600",
        button_primary_background_fill_dark="#1a72aa",
        button_primary_background_fill_hover_dark="#15669b",
        button_primary_text_color="#ffffff",
        button_secondary_background_fill="#ffffff",
        button_secondary_background_fill_hover="#eef2f6",
        button_secondary_background_fill_dark="#1f2833",
        button_secondary_background_fill_hover_dark="#2a3441",
        button_secondary_border_color="#c9d1da",
        button_secondary_border_color_dark="#3b4757",
        link_text_color="#0067a5",
        link_text_color_dark="#6db7e4",
        color_accent="#0067a5",
        block_shadow="none",
        block_border_width="1px",
        button_secondary_shadow="none",
        button_border_width="1px",
        layout_gap="18px",
    )


def style() -> str:
    """The style sheet."""
    return (ASSETS / "dashboard.css").read_text(encoding="utf-8")


def head() -> str:
    """What goes into the page's head: our script."""
    return f"<script>{(ASSETS / 'dashboard.js').read_text(encoding='utf-8')}</script>"
