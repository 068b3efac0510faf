"""A start for stages 1 and 2 at which the codec already says what the tokenizer says.

From random weights both branches need tens of thousands of steps to rediscover the tokenizer's latent.
Instead the stem takes the tokenizer's encoder, and the path from there to the mixture over the codebook
is set by formula: its residual blocks start near zero, the detail latent is a principal component
transform of 2x2 patches of latents, and the fusion head computes softmax(-|latent - code|^2 / T), or, where
there are no codes, hands the latent on.  The tokens start as principal components of what the ViT makes with
random weights, spread over their codes.  Training then moves all of it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from dlf.geometry import CELL
from dlf.nn.ablation import VectorDetails
from dlf.nn.context import ContextModel
from dlf.nn.depth import ConvFfn, DepthConv
from dlf.nn.hybrid import RunningStandard, TokenizerStem
from dlf.nn.interact import InteractBlock
from dlf.nn.layers import ConvNextBlock, SwinBlock
from dlf.nn.model import Dlf
from dlf.nn.model_config import ModelConfig
from dlf.train.data import to_float
from dlf.train.mixture import open_mixture

log = logging.getLogger(__name__)

# layers that end a residual branch
RESIDUAL_OUTPUTS: dict[type[nn.Module], tuple[str, ...]] = {
    SwinBlock: ("to_out", "mlp.c_proj"),
    ConvNextBlock: ("mlp.c_proj",),
    InteractBlock: ("detail_add.1",),
    DepthConv: ("conv2",),
    ConvFfn: ("conv_out",),
}
BRANCH = 0.05  # what is left of residual branches of the detail path
LARGEST, FLATTEN = 6.0, 0.35  # deviation of the first component; spectrum raised to this power
SMALLEST = 1e-3  # deviations below this share of the first's count as this share
CONSTANT = 8.0  # offsets of this size make a LayerNorm nearly linear in what varies
LINEAR = 0.05  # tanh is linear enough to this scale
TEMPERATURE = 3.0
CROP = 256


@torch.no_grad()
def warm_start(model: Dlf, images: Sequence[NDArray[np.uint8]], *, spread: float = 1.0) -> None:
    """Set a new model's weights from its own trained `vqgan`; images: samples to take statistics of.

    spread: above 1, for a tokenizer trained without rounding: the codes are seeded here and moved away from
    their mean by that factor, and the fusion head is fitted instead of set by formula (see
    `dlf.train.mixture`).
    The preset must have the tokenizer's stem, quant.hidden of at least 4 * code_dim and room in the fusion
    head.
    ValueError if too few of the images have a crop of 256x256 pixels.
    """
    model.eval()
    stem = model.encoder.patch_embed
    assert isinstance(stem, TokenizerStem)
    stem.encoder.load_state_dict(model.vqgan.encoder.state_dict())
    pixels = _crops(model, images)
    if model.config.quant.kind != "none":
        _damp_branches(model)
        _open_detail_path(model)
        _principal_details(model, pixels)
        if model.fusion.direct is None:
            _fuse_by_distance(model)
        else:
            _fuse_directly(model)
    _spread_tokens(model, pixels)
    context = model.details.context
    if isinstance(context, ContextModel) and context.token_prior is not None:
        # what tokens say is noise at first, and the bits' gradient would silence them before it is heard
        nn.init.zeros_(context.token_prior.cells.weight)
        assert context.token_prior.cells.bias is not None
        nn.init.zeros_(context.token_prior.cells.bias)
    if isinstance(model.details, VectorDetails):
        _seed_details(model.details, pixels, model)
    if spread > 1:
        open_mixture(model, pixels, spread)
    model.train()


def _crops(model: Dlf, images: Sequence[NDArray[np.uint8]]) -> Tensor:
    """The corner of each image that is large enough: (N, 3, 256, 256) in [0, 1]."""
    crops = [np.ascontiguousarray(image[:CROP, :CROP]) for image in images if min(image.shape[:2]) >= CROP]
    check_images(model.config, images)
    return to_float(crops).to(model.quantize.idle.device)


def check_images(config: ModelConfig, images: Sequence[NDArray[np.uint8]]) -> None:
    """Raise ValueError if too few images are large enough for a warm start of such a model."""
    # a cell for each component, a token for each code
    cells, large = (CROP // CELL) ** 2, sum(min(image.shape[:2]) >= CROP for image in images)
    needed = max(-(-config.quant.hidden // cells), -(-config.tokens.codes // config.tokens.count))
    if large < needed:
        msg = f"the warm start needs {needed} images of {CROP}x{CROP} pixels or more; there are {large}"
        raise ValueError(msg)


def _damp_branches(model: Dlf) -> None:
    for module in model.modules():
        if isinstance(module, (DepthConv, ConvFfn)) and module.math.integer:
            continue  # the context network
        for name in RESIDUAL_OUTPUTS.get(type(module), ()):
            module.get_parameter(f"{name}.weight").mul_(BRANCH)
            module.get_parameter(f"{name}.bias").zero_()


def _open_detail_path(model: Dlf) -> None:
    """The first channels of the detail path carry the tokenizer's latent, to f32 by space to depth."""
    dim = model.config.vqgan.code_dim
    encoder, quant = model.encoder, model.vqgan.quant_conv
    assert quant.bias is not None
    encoder.pix_emb_proj.weight[:dim] = quant.weight[:, :, 0, 0]
    encoder.pix_emb_proj.bias[:dim] = quant.bias
    encoder.down.weight.zero_()
    assert encoder.down.bias is not None
    encoder.down.bias.copy_(_signs(len(encoder.down.bias)) * 2 * CONSTANT)
    channel = torch.arange(dim)
    for phase in range(4):
        encoder.down.weight[phase * dim + channel, channel, phase // 2, phase % 2] = 1.0


def _principal_details(model: Dlf, pixels: Tensor) -> None:
    """Set y to the first principal components of a cell's latents, flattened in spectrum; and back."""
    dim, encoder, details = model.config.vqgan.code_dim, model.encoder, model.details
    raw = _encoder_outputs(model, encoder.down, pixels).permute(0, 2, 3, 1).flatten(0, 2)
    normed = F.layer_norm(raw, raw.shape[-1:])
    centre = normed.mean(0)
    _, values, axes = torch.linalg.svd(normed - centre, full_matrices=False)
    # the LayerNorm leaves at least one direction empty; blown up, it would be rounding errors only
    deviation = (values / values[0]).clamp(min=SMALLEST) * values[0] / len(normed) ** 0.5
    # quantisation steps give a scalar latent its scale; a codebook's loss is to weigh as much as an image's
    largest = LARGEST if model.config.quant.kind == "scalar" else 1.0
    gain = largest * (deviation / deviation[0]) ** FLATTEN / deviation
    rotate = axes * gain[:, None]
    rotate[4 * dim :] = 0.0  # what is more than the latents of a cell has no directions to take
    encoder.down_proj.weight.copy_(rotate)
    encoder.down_proj.bias.copy_(-rotate @ centre)
    last = f"enc_trans_1.{model.config.quant.blocks - 1}.0.adaptor"
    narrow = details.get_parameter(f"{last}.weight")
    channels = len(narrow)
    narrow.copy_(torch.eye(channels, narrow.shape[1])[:, :, None, None])
    widen = details.get_parameter("dec_trans_0.0.0.adaptor.weight")
    widen.copy_((axes[:channels] / gain[:channels, None]).t()[:, :, None, None])
    for name in (last, "dec_trans_0.0.0.adaptor"):
        details.get_parameter(f"{name}.bias").zero_()
    # undo the LayerNorm with the mean scale and mean, and space to depth with PixelShuffle's order
    up = model.decoder.init_feat_up
    assert up.bias is not None
    assert encoder.down.bias is not None
    scale, shift = raw.std(-1).mean(), raw.mean()
    up.weight.mul_(BRANCH)
    up.bias.zero_()
    channel = torch.arange(dim)
    for phase in range(4):
        rows = channel * 4 + phase
        up.weight[rows] = 0.0
        up.weight[rows, phase * dim + channel] = scale
        columns = phase * dim + channel
        up.bias[rows] = scale * centre[columns] + shift - encoder.down.bias[columns]


def _seed_details(details: VectorDetails, pixels: Tensor, model: Dlf) -> None:
    """Seed each group's codebook by k-means; the first groups have the largest components."""
    rows = []
    for batch in pixels.split(8):
        _, feature = model.encoder(batch, model.grid(*batch.shape[2:]))
        y = details.latent(feature, torch.full((len(batch),), 50.0, device=batch.device))
        rows.append(y.permute(0, 2, 3, 1).flatten(0, 2))
    for book, part in zip(details.codebooks(), torch.cat(rows).chunk(details.groups, 1), strict=True):
        book.seed(part)


def _signs(count: int) -> Tensor:
    """1, -1, 1, ..."""
    return 1.0 - 2.0 * (torch.arange(count) % 2)


def _encoder_outputs(model: Dlf, layer: nn.Module, pixels: Tensor) -> Tensor:
    """What a layer of the encoder makes of crops (N, 3, H, W), a few at a time."""
    outputs: list[Tensor] = []
    hook = layer.register_forward_hook(lambda _, __, out: outputs.append(out))
    for batch in pixels.split(8):
        model.encoder(batch, model.grid(*batch.shape[2:]))
    hook.remove()
    return torch.cat(outputs)


def _fuse_by_distance(model: Dlf) -> None:
    """Set logits to (2 latent . code - |code|^2) / T, through the head's own layers.

    SiLU(x) - SiLU(-x) = x carries the latent through the activation, constant channels through the
    norms, a small scale through tanh.
    """
    dim, width = model.config.vqgan.code_dim, model.config.tokens.width
    assert model.vqgan.quantize is not None
    get, codes = model.fusion.get_parameter, model.vqgan.quantize.codebook()
    channel = torch.arange(dim)
    power = codes.square().mean()

    into, bias = get("merge.0.weight"), get("merge.0.bias")
    into[:, width:].mul_(BRANCH)
    into[: 2 * dim] = 0.0
    into[2 * channel, width + channel] = 1.0
    into[2 * channel + 1, width + channel] = -1.0
    get("merge.1.weight")[: 2 * dim] = _set_constants(bias, 2 * dim, power)

    out, bias = get("merge.3.weight"), get("merge.3.bias")
    out.mul_(BRANCH)
    out[channel] = 0.0
    out[channel, 2 * channel] = 1.0
    out[channel, 2 * channel + 1] = -1.0
    spread = _set_constants(bias, dim, power)

    into = get("ffn.1.weight")
    into.mul_(BRANCH)
    get("ffn.1.bias").zero_()
    into[channel] = 0.0
    into[channel, channel] = LINEAR * spread
    out = get("ffn.3.weight")
    out.mul_(BRANCH)
    out[:, :dim] = 2 * codes / (LINEAR * TEMPERATURE)
    get("ffn.3.bias").copy_(-codes.square().sum(1) / TEMPERATURE)


def _fuse_directly(model: Dlf) -> None:
    """The latent is what the first channels of the details carry; what the head adds starts small."""
    fusion, dim = model.fusion, model.config.vqgan.code_dim
    assert fusion.direct is not None
    fusion.direct.weight.copy_(torch.eye(dim, fusion.direct.in_features))
    fusion.direct.bias.zero_()
    fusion.get_parameter("ffn.3.weight").mul_(BRANCH)
    fusion.get_parameter("ffn.3.bias").zero_()


def _set_constants(bias: Tensor, used: int, power: Tensor) -> Tensor:
    """Make channels from `used` on constant; returns by what a LayerNorm then divides the others.

    power: mean square of the used channels.
    """
    bias.zero_()
    bias[used:] = CONSTANT * _signs(len(bias) - used)
    return ((used * power + (len(bias) - used) * CONSTANT**2) / len(bias)).sqrt()


def _spread_tokens(model: Dlf, pixels: Tensor) -> None:
    """Project the ViT's tokens on their principal components and seed the codebook with them."""
    encoder = model.encoder
    tokens = _encoder_outputs(model, encoder.path.ln_post, pixels)
    centred = (tokens - tokens.mean(0)).flatten(0, 1)
    _, values, axes = torch.linalg.svd(centred, full_matrices=False)
    dim = model.config.tokens.code_dim
    encoder.conv_out.weight.copy_(axes[:dim] * (len(centred) ** 0.5 / values[:dim, None]))
    encoder.conv_out.bias.zero_()
    z = encoder.conv_out(tokens)
    if isinstance(encoder.spread, RunningStandard):
        encoder.spread.mean.copy_(z.mean(0))
        encoder.spread.square.copy_(z.square().mean(0))
        z = encoder.spread(z)
    if not model.config.tokens.levels:
        model.quantize.seed(z.flatten(0, 1))
    log.info("tokens start with %d codes in use", len(model.quantize.nearest(z).unique()))
