"""Devices and number types: bf16 is used only if its gradients are right."""

import platform
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from waiting import set_clocks

from charlm.config.model import ModelSettings
from charlm.config.settings import Settings, settings_from
from charlm.errors import EnvironmentFailure, naming
from charlm.files.memory import free_memory
from charlm.nn import devices, gpu
from charlm.nn.devices import Precision, choose_device, choose_precision
from charlm.nn.layers import RecurrentLayer
from charlm.nn.low_precision import LowCopy
from charlm.nn.model import RecurrentLanguageModel, multiplied_weights
from charlm.nn.output import MIN_CHUNKED
from charlm.nn.tagger import Tagger
from charlm.nn.torch_layers import LstmLayer
from charlm.nn.translator import Translator
from charlm.training import machine
from charlm.training.parallel import Parallel
from charlm.training.processes import ALONE, training_together
from charlm.training.tags import TagTraining
from charlm.training.task_training import training_of

CPU = torch.device("cpu")
SETTINGS = ModelSettings(num_layers=1, hidden_size=8, embedding_size=4, tie_weights=False)
ONE = torch.ones(3)


def chosen(requested: str = "auto", cell: str = "lstm") -> str:
    """Return name and reason of the chosen precision."""
    precision = choose_precision(
        requested, [ModelSettings(**{**vars(SETTINGS), "cell": cell})], 7, CPU
    )
    return f"{precision.name}: {precision.reason}"


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor with bfloat16 and without kernels, and no model is too small for it."""
    monkeypatch.setenv("CHARLM_TRAINING_KERNELS", "none")
    monkeypatch.setattr(devices, "processor_has_bf16", lambda: True)
    monkeypatch.setattr(devices, "MIN_BF16_WEIGHTS", 0)


def probed(monkeypatch: pytest.MonkeyPatch, exact: Tensor, rough: Tensor) -> None:
    """Let the test find these gradients."""
    results = {"fp32": [exact], "bf16": [rough]}
    monkeypatch.setattr(devices, "_probe", lambda *given: results[given[-1].name])


def test_a_requested_precision_is_not_tested(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "_probe", None)
    assert chosen("fp32") == "fp32: as set"


def test_a_processor_without_bfloat16_computes_in_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request for bf16 is refused."""
    monkeypatch.setattr(devices, "processor_has_bf16", lambda: False)
    monkeypatch.setattr(devices, "MIN_BF16_WEIGHTS", 0)
    assert chosen() == "fp32: this processor has no bfloat16 arithmetic"
    with pytest.raises(EnvironmentFailure, match=r"no bfloat16 arithmetic. Use precision='fp32'"):
        chosen("bf16")


@pytest.mark.usefixtures("served")
@pytest.mark.parametrize(
    ("factor", "name", "why"),
    [
        (1.01, "bf16", "gradients agree"),
        (1.2, "fp32", "20 % off"),
        (float("nan"), "fp32", "% off"),
    ],
)
def test_bf16_is_used_if_its_gradients_agree(
    factor: float, name: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    probed(monkeypatch, ONE, factor * ONE)
    assert chosen().startswith(f"{name}: ")
    assert why in chosen()


@pytest.mark.usefixtures("served")
def test_the_choice_does_not_depend_on_clocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of two equal runs once found bf16 "22 times slower"."""
    before = chosen()
    ticks = iter(range(0, 10**9, 1000))
    set_clocks(monkeypatch, lambda: float(next(ticks)))
    assert chosen() == before
    assert next(ticks) == 0


def test_small_models_use_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless bf16 is requested."""
    monkeypatch.setattr(devices, "processor_has_bf16", lambda: True)
    monkeypatch.setattr(devices, "_probe", lambda *_: [ONE])
    weights = multiplied_weights(SETTINGS, 7)
    assert chosen() == "fp32: bf16 is no faster for a model this small"
    monkeypatch.setattr(devices, "MIN_BF16_WEIGHTS", weights)
    assert chosen().startswith("bf16: ")
    monkeypatch.setattr(devices, "MIN_BF16_WEIGHTS", weights + 1)
    assert chosen().startswith("fp32: ")
    assert chosen("bf16").startswith("bf16: ")


@pytest.mark.parametrize("probe", ["_is_amx_tile_supported", "_is_avx512_bf16_supported"])
@pytest.mark.parametrize("flag", ["avx512_bf16", "amx_bf16", "avx512f"])
@pytest.mark.parametrize("served", [True, False])
def test_bfloat16_is_detected_by_torch_or_by_processor_flags(
    probe: str, flag: str, served: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """oneDNN must support it too."""
    for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported", "_is_arm_bf16_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: False, raising=False)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: served)
    monkeypatch.setattr(devices.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(devices, "processor_features", lambda: frozenset({flag}))
    assert devices.processor_has_bf16() is (served and "bf16" in flag)
    monkeypatch.setattr(torch.cpu, probe, lambda: True, raising=False)
    assert devices.processor_has_bf16() is served


GPU = torch.device("cuda")


@pytest.mark.parametrize(
    ("cell", "capability", "emulates", "versions", "expected"),
    [
        ("lstm", (9, 0), False, ("2.13.0", 91900), "bf16"),
        ("lstm", (8, 0), False, ("2.10.0", 91002), "fp16"),  # cuDNN is too old for bfloat16
        ("gru", (8, 0), False, ("2.9.1+cu130", 91300), "fp16"),  # torch does not use it
        ("mogrifier", (8, 0), False, ("2.6.0", 90100), "bf16"),  # cuDNN computes no layer
        ("mogrifier", (7, 5), True, ("2.13.0", 91900), "fp16"),  # a T4
        ("lstm", (6, 1), True, ("2.6.0", 90100), "bf16"),  # float16 is no faster; then fp32
        ("lstm", (9, 0), False, ("2.13.0", None), "fp16"),
    ],
)
def test_a_gpu_gets_the_type_that_it_computes_fast(
    cell: str, capability: tuple[int, int], emulates: bool, versions: tuple[str, int | None],
    expected: str, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """`auto` is float16 where bfloat16 would be emulated, or computed step by step."""
    monkeypatch.setattr(torch, "__version__", versions[0])
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: versions[1])
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setattr(
        torch.cuda,
        "is_bf16_supported",
        lambda including_emulation: including_emulation or not emulates,
    )
    monkeypatch.setattr(devices, "gradient_problem", lambda *_: None)
    settings = replace(SETTINGS, cell=cell)
    assert gpu.low_type(settings, GPU) == expected
    chosen = choose_precision("auto", [settings], 7, GPU, static=True).name
    assert chosen == ("fp32" if capability == (6, 1) else expected)
    assert gpu.low_type(settings, CPU) == "bf16"


def test_a_gpu_that_does_not_compute_is_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """`auto` takes the processor in its place; a request gets the reason of torch."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    ones = lambda *_, **__: (_ for _ in ()).throw(  # noqa: E731
        RuntimeError(
            "CUDA error: no kernel image is available for execution on the device\nCUDA ..."
        )
    )
    monkeypatch.setattr(torch, "ones", ones)
    gpu.cuda_problem.cache_clear()
    try:
        assert choose_device("auto") == CPU and choose_device("cpu") == CPU
        with pytest.raises(
            EnvironmentFailure, match=r"not compute here \(CUDA error: no kernel .*'cpu'"
        ):
            choose_device("cuda")
        monkeypatch.setattr(torch, "ones", lambda *_, **__: ONE[0])
        gpu.cuda_problem.cache_clear()
        assert choose_device("auto") == choose_device("cuda") == GPU
    finally:
        gpu.cuda_problem.cache_clear()


def test_a_gpu_that_emulates_bfloat16_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those before compute capability 8.0: torch supports the type there, more slowly than fp32."""
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation
    )
    assert devices.missing_bf16(GPU) == "bfloat16 is not supported on this cuda device"


@pytest.mark.parametrize("name", ["bf16", "fp16"])
def test_a_gpu_trains_a_copy_in_low_precision(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`auto` takes bf16, which has the range of fp32."""
    asked: list[tuple[object, ...]] = []
    monkeypatch.setattr(devices, "missing_bf16", lambda _: None)
    monkeypatch.setattr(devices, "low_type", lambda *_: "bf16")
    monkeypatch.setattr(devices, "gradient_problem", lambda *given: asked.append(given))
    requested = ("auto", name) if name == "bf16" else (name,)
    for each in requested:
        precision = choose_precision(each, [SETTINGS], 7, GPU, static=True)
        assert precision.name == asked[-1][-1] == name
        assert precision.copy_type == getattr(
            torch, name.replace("bf", "bfloat").replace("fp", "float")
        )
    with precision.autocast(GPU):
        assert not torch.is_autocast_enabled("cuda")


@pytest.mark.parametrize(("device", "comparisons"), [(GPU, 1), (CPU, 2)])
def test_a_gpu_compares_types_once_for_all_rates_of_dropout(
    device: torch.device, comparisons: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The measured model has another rate than the plan; a comparison takes a second."""
    compared: list[ModelSettings] = []
    monkeypatch.setattr(devices, "choose_device", lambda _: device)
    monkeypatch.setattr(machine, "set_threads", lambda number: number)
    monkeypatch.setattr(
        machine, "choose_precision", lambda settings, *_: compared.append(settings.model)
    )
    data: Any = SimpleNamespace(vocabulary=range(7))
    here = machine.Machine(Settings(), data)
    for rate in (0.2, 0.4):
        here.precision(replace(SETTINGS, dropout=rate, output_dropout=rate), 32)
    assert len(compared) == comparisons
    here.precision(replace(SETTINGS, hidden_size=9), 32)
    assert len(compared) == comparisons + 1


@pytest.mark.parametrize(
    ("static", "changed"),
    [(False, {}), (True, {"learned_state": True}), (True, {"adaptive_softmax": True})],
)
def test_a_model_that_has_no_copy_trains_in_fp32(
    static: bool, changed: dict[str, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "missing_bf16", lambda _: None)
    monkeypatch.setattr(devices, "low_type", lambda *_: "bf16")
    monkeypatch.setattr(devices, "_probe", None)
    settings = [replace(SETTINGS, hidden_size=16, **changed)]
    precision = choose_precision("auto", settings, 50, GPU, static=static)
    assert (precision.name, precision.copy_type) == ("fp32", None)
    with pytest.raises(EnvironmentFailure, match=r"cannot be computed by a copy.*precision='fp32'"):
        choose_precision("fp16", settings, 50, GPU, static=static)


def test_fp16_is_for_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "_probe", None)
    with pytest.raises(EnvironmentFailure, match="only a CUDA GPU trains in it, and this is cpu"):
        chosen("fp16")


def test_a_large_output_is_tested_with_fewer_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its logits would take gigabytes."""
    rows = []
    forward = devices.RecurrentLanguageModel.forward

    def watched(model, ids, state=None, generator=None):
        rows.append(ids.shape[1])
        return forward(model, ids, state, generator)

    monkeypatch.setattr(devices.RecurrentLanguageModel, "forward", watched)
    for most, expected in ((2**26, 32), (16 * 7 * 5, 5), (1, 1)):
        monkeypatch.setattr(devices, "MAX_PROBED", most)
        fresh = devices._Fresh(SETTINGS, 7)
        devices._probe(fresh, CPU, devices.Precision(name="fp32", reason="test"))
        assert rows[-1] == expected


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
@pytest.mark.parametrize("name", ["bf16", "fp16"])
def test_padded_copies_are_compared(cell: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in fp32, so that the masks of dropout are equal; here a processor computes them."""
    copy_of, copies = devices._copy_of, list[LowCopy]()

    def copy_of_a_gpu(model, _device, precision):
        copies.append(copy_of(model, GPU, precision))
        return copies[-1]

    monkeypatch.setattr(devices, "_copy_of", copy_of_a_gpu)
    sizes = {"hidden_size": 90, "embedding_size": 20, "dropout": 0.5, "weight_drop": 0.5}
    settings = replace(SETTINGS, cell=cell, **sizes)
    assert devices.gradient_problem([settings], 7, CPU, None, name) is None
    assert [low.model.layers[0].hidden_size for low in copies] == [96, 96]


def test_probes_share_first_weights_that_are_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Orthogonal weights of two layers with 2,048 units took 6 seconds for each probe."""
    made, exact = [], devices.Precision(name="fp32", reason="test")
    reset = devices.RecurrentLanguageModel.reset_parameters

    def counted(model, generator):
        made.append(model)
        reset(model, generator)

    monkeypatch.setattr(devices.RecurrentLanguageModel, "reset_parameters", counted)
    dropout = replace(SETTINGS, dropout=0.5, input_dropout=0.5)
    assert devices.gradient_problem([dropout], 7, CPU, name="fp32") is None
    assert len(made) == 1
    fresh = devices._Fresh(dropout, 7)
    before = [weight.clone() for weight in fresh.model.parameters()]
    first, second = (devices._probe(fresh, CPU, exact) for _ in range(2))
    other = devices._probe(devices._Fresh(dropout, 7), CPU, exact)
    for a, b, c in zip(first, second, other, strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a, c)
    for weight, kept in zip(fresh.model.parameters(), before, strict=True):
        assert torch.equal(weight, kept)
        assert weight.grad is None


@pytest.mark.usefixtures("served")
def test_a_reservoir_has_nothing_to_compare() -> None:
    assert "no gradients to compare" in chosen(cell="esn")


def test_a_missing_device_is_reported_with_the_existing_ones() -> None:
    assert choose_device("cpu") == CPU
    if not torch.cuda.is_available():
        assert choose_device("auto") == CPU
        with pytest.raises(EnvironmentFailure, match=r"device cuda is not available.*found cpu"):
            choose_device("cuda")


HOLES = """
import os, torch
from pathlib import Path
from charlm.nn.heap import keep_freed_memory, return_freed_memory

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

keep_freed_memory()
blocks = [torch.ones(1 << 18) for _ in range(200)]  # 1 MB each
del blocks[::2]
before = resident()
assert not return_freed_memory(1 << 50)
assert return_freed_memory(0)
print(before - resident())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators have no such call")
def test_holes_between_blocks_are_returned_to_the_system() -> None:
    result = subprocess.run([sys.executable, "-c", HOLES], capture_output=True, text=True)
    assert result.stdout and int(result.stdout) > 50_000_000, result.stderr


LARGE = """
import re, torch
from pathlib import Path
from charlm.nn.heap import HEAP, keep_freed_memory

keep_freed_memory()
middle = torch.ones(1 << 24)[1 << 23].data_ptr()  # of 64 MB
advised = 0
for area in re.split(r"\\n(?=[0-9a-f]+-[0-9a-f]+ )", Path("/proc/self/smaps").read_text()):
    first, last = (int(address, 16) for address in re.match(r"(\\w+)-(\\w+)", area).groups())
    if "hg" in area.rpartition("VmFlags:")[2].split():
        advised += last - first
        print("inside" if first <= middle < last else "elsewhere")
assert advised > HEAP - (1 << 22), advised
"""


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc" or not Path("/sys/kernel/mm/transparent_hugepage").exists(),
    reason="no large pages",
)
def test_large_tensors_are_where_large_pages_are_asked_for() -> None:
    result = subprocess.run([sys.executable, "-c", LARGE], capture_output=True, text=True)
    assert "inside" in result.stdout, result.stderr


GROUPS = {
    2: ("", "", ("memory.max", "memory.current", "inactive_file")),
    1: (
        "memory,hugetlb", "memory/",
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ),
}  # fmt: skip
"""Controllers, folder and names of control groups of both versions."""


def write_group(root: Path, version: int, path: str, limit: object, used: int, cache: int) -> None:
    """Write the files of a control group in a tree that looks like / of a Linux machine."""
    _, folder, (limit_file, used_file, word) = GROUPS[version]
    group = root / "sys/fs/cgroup" / f"{folder}{path}"
    group.mkdir(parents=True, exist_ok=True)
    (group / limit_file).write_text(f"{limit}\n")
    (group / used_file).write_text(f"{used}\n")
    (group / "memory.stat").write_text(f"anon 1\n{word} {cache}\nunevictable 0\n")


@pytest.mark.parametrize("version", [1, 2])
def test_the_least_limit_of_all_control_groups_counts(version: int, tmp_path: Path) -> None:
    """A job of Slurm has the limit of a group above its own; caches of files can be given up."""
    assert free_memory(tmp_path) is None
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text("MemTotal: 9000 kB\nMemAvailable:    8000 kB\n")
    assert free_memory(tmp_path) == 8_192_000
    lines = f"3:cpu,cpuacct:/other\n7:{GROUPS[version][0]}:/slurm/job_7/step_0\n"
    (tmp_path / "proc/self/cgroup").write_text(lines)
    unlimited = "max" if version == 2 else 2**63 - 4096
    write_group(tmp_path, version, "other", 100, 0, 0)  # that of another controller
    write_group(tmp_path, version, "slurm/job_7/step_0", unlimited, 500_000, 0)
    assert free_memory(tmp_path) == 8_192_000
    write_group(tmp_path, version, "slurm/job_7", 3_000_000, 900_000, 200_000)
    assert free_memory(tmp_path) == 2_300_000
    write_group(tmp_path, version, "", 1_000_000, 900_000, 50_000)  # as a container sees its own
    assert free_memory(tmp_path) == 150_000
    write_group(tmp_path, version, "slurm", 400_000, 900_000, 0)
    assert free_memory(tmp_path) == 0


def engines_tried(
    monkeypatch: pytest.MonkeyPatch,
    problems: dict[str | None, str | None],
    engine: str = "auto",
    rows: int = 32,
    variant: str = "amx",
) -> Precision:
    """Return the choice where these kernels exist and engines have these problems."""
    monkeypatch.setattr(devices, "chosen_variant", lambda: variant)
    monkeypatch.setattr(devices, "gradient_problem", lambda *given: problems[given[3]])
    return choose_precision("auto", [SETTINGS], MIN_CHUNKED, CPU, engine, rows)


@pytest.mark.usefixtures("served")
def test_kernels_are_used_if_their_gradients_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then torch, then float32; the reason names what was left out."""
    right = {"amx": None, None: None}
    assert engines_tried(monkeypatch, right).kernels == "amx"
    assert engines_tried(monkeypatch, right, "torch").kernels is None
    monkeypatch.setattr(devices, "open_library", lambda name: bool(name))
    assert engines_tried(monkeypatch, right).softmax == "amx"
    slow = "avx512bf16"
    few = engines_tried(monkeypatch, {slow: None, None: None}, rows=16, variant=slow)
    assert (few.kernels, few.softmax) == (None, slow)
    chosen = engines_tried(monkeypatch, {"amx": "20 % off", None: None})
    assert chosen == Precision(
        name="bf16", reason="gradients agree with fp32; in amx kernels, 20 % off"
    )
    chosen = engines_tried(monkeypatch, {"amx": None, None: "33 % off"})
    assert (chosen.name, chosen.kernels) == ("bf16", "amx")
    assert engines_tried(monkeypatch, {"amx": "x", None: "y"}).name == "fp32"
    for names, engine in (({}, "engine={!r}"), ({"engine": "--engine"}, "--engine {}")):
        native, torch_ = engine.format("native"), engine.format("torch")
        with naming(names), pytest.raises(EnvironmentFailure) as error:
            engines_tried(monkeypatch, {"amx": "x", None: None}, "native")
        assert str(error.value) == f"{native} cannot be used: x. Use {torch_}"


@pytest.mark.usefixtures("served")
def test_torch_comes_first_for_batches_of_few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernels fill batches up to 32 rows; they remain for gradients that torch gets wrong.

    Those with AMX are faster for any number of rows.
    """
    slow = "avx512bf16"
    right = {"amx": None, slow: None, None: None}
    for rows, kernels in ((1, None), (16, None), (24, slow), (33, None), (48, slow), (96, slow)):
        assert engines_tried(monkeypatch, right, rows=rows, variant=slow).kernels == kernels
        assert engines_tried(monkeypatch, right, rows=rows).kernels == "amx"
    assert engines_tried(monkeypatch, right, "native", rows=1, variant=slow).kernels == slow
    chosen = engines_tried(monkeypatch, {slow: None, None: "33 % off"}, rows=1, variant=slow)
    assert chosen.kernels == slow
    assert chosen.reason == "gradients agree with fp32; in torch, 33 % off"


@pytest.mark.usefixtures("served")
def test_a_request_for_kernels_that_are_missing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CHARLM_TRAINING_KERNELS", raising=False)
    monkeypatch.setattr(devices, "chosen_variant", lambda: None)
    with pytest.raises(EnvironmentFailure, match=r"cannot train cell lstm.*engine='torch'"):
        choose_precision("auto", [SETTINGS], 7, CPU, "native")


@pytest.mark.usefixtures("served")
def test_every_network_of_a_model_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """The decoder of a translator is twice as wide as its encoders, and was not compared."""
    wide = replace(SETTINGS, hidden_size=16)

    def gradients(fresh: devices._Fresh, *given: object) -> list[Tensor]:
        wrong = fresh.model.settings == wide and given[-1].name == "bf16"
        return [2 * ONE if wrong else ONE]

    monkeypatch.setattr(devices, "_probe", gradients)
    assert choose_precision("auto", [SETTINGS], 7, CPU).name == "bf16"
    assert choose_precision("auto", [SETTINGS, wide], 7, CPU).name == "fp32"


@pytest.mark.usefixtures("served")
def test_the_comparison_has_the_dropout_of_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """State dropout makes layers run step by step, which may be right or wrong on its own."""
    steps = []
    forward = LstmLayer.forward
    monkeypatch.setattr(
        LstmLayer,
        "forward",
        lambda self, x, state: (steps.append(len(x)), forward(self, x, state))[1],
    )
    choose_precision("bf16", [replace(SETTINGS, state_dropout=0.5)], 7, CPU)
    assert set(steps) == {1}


def layer_sizes(model: torch.nn.Module) -> set[tuple[int, int]]:
    """Return input and hidden sizes of all recurrent layers."""
    layers = [part for part in model.modules() if isinstance(part, RecurrentLayer)]
    return {(layer.input_size, layer.hidden_size) for layer in layers}


@pytest.mark.parametrize("task", ["translate", "tag"])
def test_the_networks_of_a_task_have_all_shapes_of_its_layers(
    task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_from({"task": {"task": task, "both_ways": True}, "model": vars(SETTINGS)})
    model = settings.model
    if task == "translate":
        whole: torch.nn.Module = Translator(model, 7, 6, both_ways=True)
    else:
        monkeypatch.setattr(TagTraining, "_letter_width", lambda *_: 2)
        whole = Tagger(
            model, 7, ("A", "B"), both_ways=True, output="softmax", letter_width=2, letters=5
        )
    networks = training_of(settings).networks(settings, None)
    assert networks[0] == model
    found = set().union(*(layer_sizes(RecurrentLanguageModel(each, 7)) for each in networks))
    assert found == layer_sizes(whole)


@pytest.mark.parametrize(
    ("recorded", "device", "processes", "kept"),
    [
        ("bf16", GPU, 1, True),
        ("bf16", GPU, 2, False),
        ("fp16", GPU, 1, True),
        ("fp16", CPU, 1, False),
        ("fp32", GPU, 2, True),
    ],
)
def test_a_resumed_run_keeps_a_precision_that_works_here(
    recorded: str,
    device: torch.device,
    processes: int,
    kept: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Several processes take plain steps, in fp32; a processor that was left fp16 took bf16."""
    other = Precision(name="other", reason="")
    monkeypatch.setattr(devices, "missing_bf16", lambda _: None)
    settings = settings_from({"model": vars(SETTINGS)})
    monkeypatch.setattr(machine, "choose_precision", lambda *_: other)
    monkeypatch.setattr(machine, "device_name", str)
    precision = {"name": recorded, "reason": "as before"}
    record = {"precision": precision, "machine": {"device_name": str(device)}}
    with training_together(Parallel(0, processes) if processes > 1 else ALONE):
        chosen = machine.session_precision(settings, None, device, record)
    assert chosen.name == (recorded if kept else "other")


def test_several_processes_on_gpus_train_in_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take plain steps, which use no copy."""
    asked: list[bool] = []
    task = training_of(settings_from({}))
    monkeypatch.setattr(type(task), "networks", lambda *_: [SETTINGS])
    monkeypatch.setattr(type(task), "outputs", lambda *_: 7)
    monkeypatch.setattr(devices, "choose_precision", lambda *_, static, **__: asked.append(static))
    for processes in (ALONE, Parallel(0, 2)):
        with training_together(processes):
            machine.choose_precision(settings_from({}), None, GPU)
    assert asked == [True, False]
