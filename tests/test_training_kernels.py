"""The training kernels against float64 loops, and the laws that hold bit for bit."""

# ruff: noqa: N803, N806  (T, B, E, H and V as in call.hpp)

import ctypes
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from charlm.backends import training_library
from charlm.backends.training_library import CELLS, Call, open_library
from charlm.errors import EnvironmentFailure

ALLOWED = 0.01
"""Relative error (Frobenius norm) of bfloat16 products and gates; at most 0.0086 with 12 seeds."""
ALLOWED_OF_FEW = 0.15
"""The same for at most 64 numbers, whose terms may cancel."""
GATES = {"rnn": 1, "lstm": 4, "gru": 3}
VARIANTS = training_library.variants()
LAYERS = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}
WANTED = ("x", "h0", "c0", "w_ih", "w_hh", "b_ih", "b_hh")
SHAPES = [
    (1, 1, 1, 1), (2, 32, 32, 32), (3, 33, 31, 33), (5, 7, 13, 17), (9, 65, 64, 48),
    (4, 3, 250, 129), (17, 1, 33, 64), (20, 40, 10, 130),
]  # fmt: skip
"""T, B, E, H."""

pytestmark = pytest.mark.skipif(not VARIANTS, reason="no compiler or no AVX-512 BF16")
every_variant = pytest.mark.parametrize("variant", VARIANTS)
every_cell = pytest.mark.parametrize("cell", CELLS)
Tensors = dict[str, Tensor]


def draw(cell: str, T: int, B: int, E: int, H: int, V: int = 0, seed: int = 0) -> Tensors:
    """Return random arguments of a layer and gradients of its results, in float64."""
    generator = torch.Generator().manual_seed(seed)

    def some(*shape: int, scale: float = 1.0) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64) * scale

    width = GATES[cell] * H
    values = {
        "x": some(*(V, E) if V else (T, B, E)),
        "h0": some(B, H, scale=0.5), "c0": some(B, H, scale=0.5),
        "w_ih": some(width, E, scale=E**-0.5), "w_hh": some(width, H, scale=H**-0.5),
        "b_ih": some(width, scale=0.1), "b_hh": some(width, scale=0.1), "dy": some(T, B, H),
        "dh_after": some(B, H), "dc_after": some(B, H),
    }  # fmt: skip
    if V:
        values["ids"] = torch.randint(V, (T, B), generator=generator)
    if cell != "lstm":
        del values["c0"], values["dc_after"]
    return values


def run(
    variant: str, cell: str, values: Tensors, *, low: bool = False, threads: int = 1,
    training: bool = True, wanted: tuple[str, ...] = WANTED, unset: int = 0,
) -> Tensors:  # fmt: skip
    """Return the results of the kernels and the gradients of all arguments.

    low: x and y are bfloat16; unset: the value of each byte of their memory before the call.
    """
    library = open_library(variant)
    wide = torch.bfloat16 if low else torch.float32
    tensors = {
        name: value if name == "ids" else value.to(wide if name in ("x", "dy") else torch.float32)
        for name, value in values.items()
    }
    like = values["ids"] if "ids" in values else values["x"]
    (T, B), H = like.shape[:2], values["w_hh"].shape[1]
    results = {
        "y": torch.full((T, B, H), torch.nan, dtype=wide),
        **{
            f"{name[0]}_after": torch.full((B, H), torch.nan)
            for name in ("h0", "c0")
            if name in values
        },
    }
    gradients = {
        f"d{name}": torch.full_like(tensors[name], torch.nan) for name in wanted if name in tensors
    }
    sizes = [ctypes.c_int64() for _ in range(3)]
    call = Call(
        cell=CELLS[cell], threads=threads, T=T, B=B, H=H, training=training, y_is_bf16=low,
        x_is_bf16=low, E=values["x"].shape[-1], V=len(values["x"]) if "ids" in values else 0,
    )  # fmt: skip
    library.training_sizes(call, *sizes)
    saved, forward, backward = (
        torch.full((size.value,), unset, dtype=torch.uint8) for size in sizes
    )
    for name, tensor in (
        tensors | results | gradients | {"saved": saved, "scratch": forward}
    ).items():
        setattr(call, name, tensor.data_ptr())
    assert library.training_forward(call) == 0
    if training:
        call.scratch = backward.data_ptr()
        assert library.training_backward(call) == 0
    return results | (gradients if training else {})


def exact(cell: str, values: Tensors) -> Tensors:
    """Return the same results and gradients by torch's layers in float64."""
    inputs = {
        name: value.clone().requires_grad_()
        for name, value in values.items()
        if name not in ("ids", "dy", "dh_after", "dc_after")
    }
    h, x = inputs["h0"], inputs["x"]
    if "ids" in values:
        x = x[values["ids"]]
    layer = LAYERS[cell](x.shape[2], h.shape[1], dtype=torch.float64)
    names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    state = (h[None], inputs["c0"][None]) if cell == "lstm" else h[None]
    weights = dict(zip(names, (inputs[n] for n in ("w_ih", "w_hh", "b_ih", "b_hh")), strict=True))
    y, after = torch.func.functional_call(layer, weights, (x, state))
    results = {"y": y, "h_after": after[0] if cell != "lstm" else after[0][0]}
    if cell == "lstm":
        results["c_after"] = after[1][0]
    torch.autograd.backward(list(results.values()), [values[f"d{name}"] for name in results])
    return {n: r.detach() for n, r in results.items()} | {
        f"d{n}": i.grad for n, i in inputs.items()
    }


def compare(found: Tensors, right: Tensors) -> None:
    assert found.keys() == right.keys()
    for name, value in right.items():
        error = float((found[name].double() - value).norm() / value.norm().clamp_min(1e-30))
        assert error < (ALLOWED if value.numel() > 64 else ALLOWED_OF_FEW), (name, error)


def assert_equal(found: Tensors, right: Tensors) -> None:
    for name, value in right.items():
        assert torch.equal(found[name], value), name


@every_variant
@every_cell
def test_results_and_gradients_are_those_of_a_float64_layer(variant: str, cell: str) -> None:
    for number, shape in enumerate(SHAPES):
        values = draw(cell, *shape)
        compare(run(variant, cell, values, low=number % 2 == 1), exact(cell, values))


@every_variant
@every_cell
def test_a_table_of_tokens_has_the_results_and_gradients_of_its_rows(
    variant: str, cell: str
) -> None:
    for number, (T, B, V, H) in enumerate([(5, 7, 3, 17), (1, 1, 1, 1), (12, 33, 65, 70)]):
        values = draw(cell, T, B, 35, H, V)
        compare(run(variant, cell, values, low=number == 0), exact(cell, values))


@every_variant
@every_cell
def test_pieces_of_a_window_are_the_whole_bit_for_bit(variant: str, cell: str) -> None:
    for low in (False, True):
        values = draw(cell, 23, 37, 40, 72)
        call = partial(run, variant, cell, low=low, training=False)
        whole = run(variant, cell, values, low=low)
        start = call(values | {"x": values["x"][:10]})
        state = {"h0": start["h_after"], "c0": start.get("c_after")}
        rest = call(
            values | {"x": values["x"][10:]} | {n: s for n, s in state.items() if n in values}
        )
        assert torch.equal(whole["y"], torch.cat([start["y"], rest["y"]]))
        assert_equal(rest | {"y": whole["y"]}, {n: whole[n] for n in rest})


@every_variant
@every_cell
def test_the_number_of_threads_does_not_change_a_bit(variant: str, cell: str) -> None:
    for shape in [(9, 33, 70, 96), (6, 40, 64, 160)]:
        T, B, E, H = shape
        for values in (draw(cell, T, B, E, H), draw(cell, T, B, E, H, V=37)):
            one = run(variant, cell, values)
            for threads in (2, 3, 5, 1):
                assert_equal(run(variant, cell, values, threads=threads), one)


@every_variant
@every_cell
def test_memory_need_not_be_set(variant: str, cell: str) -> None:
    """With 255 for each byte, every number in it is a NaN."""
    for T, B, E, H, V in [
        (3, 33, 31, 33, 0),
        (2, 1, 1, 1, 0),
        (9, 40, 20, 65, 0),
        (4, 7, 20, 35, 45),
    ]:
        values = draw(cell, T, B, E, H, V)
        for low in (False, True):
            right = run(variant, cell, values, low=low)
            assert_equal(run(variant, cell, values, low=low, unset=255), right)


@every_variant
@every_cell
def test_rows_of_a_table_that_no_token_reads_do_not_reach_the_state(
    variant: str, cell: str
) -> None:
    """Not even where the batch is padded: the gradient of w_hh once read row 0 there."""
    values = draw(cell, 4, 3, 20, 35, V=6)
    values["ids"] = values["ids"].clamp(1, 4)
    right = run(variant, cell, values)
    values["x"][[0, 5]] = torch.nan
    found = run(variant, cell, values)
    del found["dw_ih"], right["dw_ih"]  # zero times NaN, as in a product by torch
    assert_equal(found, right)


@every_variant
@every_cell
@pytest.mark.parametrize(("T", "B"), [(0, 3), (4, 0), (0, 0)])
def test_an_empty_window_passes_the_state_and_its_gradient(
    variant: str, cell: str, T: int, B: int,
) -> None:  # fmt: skip
    for values in (draw(cell, T, B, 5, 6), draw(cell, T, B, 1, 6, 4)):
        found = run(variant, cell, values)
        for name in ("h", "c"):
            if f"{name}_after" in found:
                assert torch.equal(found[f"{name}_after"], values[f"{name}0"].float())
                assert torch.equal(found[f"d{name}0"], values[f"d{name}_after"].float())
        for name in ("dw_ih", "dw_hh", "db_ih", "db_hh", "dx"):
            assert not found[name].any(), name


@every_variant
@every_cell
def test_gradients_that_are_not_wanted_may_be_null(variant: str, cell: str) -> None:
    for values in (draw(cell, 3, 4, 5, 6), draw(cell, 3, 4, 5, 6, 7)):
        whole = run(variant, cell, values)
        few = run(variant, cell, values, wanted=("h0",))
        assert torch.equal(few["dh0"], whole["dh0"])
        assert "dw_hh" in whole and "dw_hh" not in few


@every_variant
def test_ids_outside_of_the_table_are_refused(variant: str) -> None:
    values = draw("lstm", 3, 2, 1, 6, 4)
    values["ids"][1, 1] = 4
    with pytest.raises(AssertionError):
        run(variant, "lstm", values)


@every_variant
@every_cell
def test_a_nan_is_not_hidden(variant: str, cell: str) -> None:
    values = draw(cell, 2, 3, 4, 5)
    values["b_ih"][0] = torch.nan
    assert run(variant, cell, values)["y"].isnan().any()


@every_variant
def test_subnormal_numbers_are_computed_again_after_a_call(variant: str) -> None:
    tiny = torch.full((64,), 1e-40)
    run(variant, "lstm", draw("lstm", 2, 3, 4, 5))
    assert (tiny * 0.5).any() and (tiny * 0.5 < 1e-40).all()


def exact_tile(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """Return c + a b with the order of additions of tdpbf16ps, by float64 sums rounded to float."""
    even, odd = torch.zeros_like(c), torch.zeros_like(c)
    for k in range(0, 32, 2):
        even = (even.double() + a[:, k, None].double() * b[None, k].double()).float()
        odd = (odd.double() + a[:, k + 1, None].double() * b[None, k + 1].double()).float()
    return c + (even + odd)


@pytest.mark.parametrize("exponents", [1, 60])
def test_amx_and_its_emulation_have_the_documented_bits(exponents: int) -> None:
    generator = torch.Generator().manual_seed(0)

    def some(*shape: int) -> Tensor:
        sizes = torch.randint(-exponents, exponents, shape, generator=generator)
        return torch.randn(*shape, generator=generator) * torch.exp2(sizes.float())

    for _ in range(20):
        a, b = some(32, 32).bfloat16(), some(32, 32).bfloat16()  # rows by k, k by columns
        c = some(32, 32)
        b_tiles = b.view(16, 2, 2, 16).permute(2, 0, 3, 1).contiguous()
        c_tiles = c.view(2, 16, 2, 16).transpose(1, 2)
        right = exact_tile(a, b, c)
        for variant in {"amx", "emulated512"} & set(VARIANTS):
            out = c_tiles.contiguous()
            open_library(variant).training_tile(a.data_ptr(), b_tiles.data_ptr(), out.data_ptr())
            assert torch.equal(out.transpose(1, 2).reshape(32, 32), right), variant


@pytest.mark.skipif(
    not {"amx", "emulated512"} <= set(VARIANTS), reason="needs a processor with AMX"
)
@every_cell
def test_amx_and_its_emulation_give_the_same_bits(cell: str) -> None:
    windows = [draw(cell, *shape) for shape in SHAPES]
    tables = [(5, 7, 3, 17), (12, 33, 65, 70), (0, 3, 4, 6), (4, 0, 4, 6)]  # T, B, V, H
    windows += [draw(cell, T, B, 35, H, V) for T, B, V, H in tables]
    for values in windows:
        for low in (False, True):
            found, right = (run(v, cell, values, low=low) for v in ("amx", "emulated512"))
            assert_equal(found, right)


@pytest.mark.skipif("emulated512" not in VARIANTS, reason="not built; run scripts/build_kernels.py")
def test_the_emulation_is_chosen_by_name_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(training_library.VARIABLE, raising=False)
    assert training_library.chosen_variant() in {"amx", "avx512bf16"}
    monkeypatch.setenv(training_library.VARIABLE, "emulated512")
    assert training_library.chosen_variant() == "emulated512"
    monkeypatch.setenv(training_library.VARIABLE, "none")
    assert training_library.chosen_variant() is None
    monkeypatch.setenv(training_library.VARIABLE, "sse")
    with pytest.raises(EnvironmentFailure, match="expected none, or a variant that runs here"):
        training_library.chosen_variant()
