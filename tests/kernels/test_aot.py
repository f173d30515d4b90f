"""Every shipped kernel, compiled for three architectures by every triton at hand, keeps its limits.

Under TRITON_INTERPRET nothing compiles, and a process imports one triton only; hence a process for each.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from optillm_kernels import aot, aot_tables, machine_code

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "kernels.md"
BESIDE = {
    folder.name: folder for folder in sorted(Path(sys.prefix).glob("triton-*")) if (folder / ".ready").exists()
}
"""What `make test` fetches beside the installed one."""
TRITONS = {"installed": None, **BESIDE}
WRITE = "python -m optillm_kernels.aot --markdown --triton-path DIR ... > docs/kernels.md"
CAPABILITIES = (90, 80, 100)

Compiled = subprocess.CompletedProcess[str]


def run(*options: object, triton: Path | None = None, interpret: bool = False) -> Compiled:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment |= {"PYTHONPATH": str(HERE), **({"TRITON_INTERPRET": "1"} if interpret else {})}
    where = ("--triton-path", triton) if triton else ()
    command = [sys.executable, "-m", "optillm_kernels.aot", *map(str, (*options, *where))]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=580, check=False)


def reports(done: Compiled) -> dict[str, dict[str, Any]]:
    assert done.returncode in (0, 1), done.stderr
    return {report["name"]: report for report in json.loads(done.stdout)}


@pytest.fixture(scope="module", params=TRITONS.values(), ids=TRITONS.keys())
def compiled(request: pytest.FixtureRequest) -> Mapping[int, Compiled]:
    """What ships, by capability; the processes share the cores."""
    with ThreadPoolExecutor() as pool:
        done = pool.map(
            lambda capability: run("--capability", capability, "--json", triton=request.param), CAPABILITIES
        )
        return dict(zip(CAPABILITIES, done, strict=True))


@pytest.mark.timeout(600)
@pytest.mark.parametrize("capability", CAPABILITIES, ids="sm_{}".format)
def test_every_variant_compiles_and_keeps_its_limits(compiled: Mapping[int, Compiled], capability: int) -> None:
    found = reports(compiled[capability])
    assert {name: report["broken"] for name, report in found.items() if report["broken"]} == {}
    assert list(found) == [variant.name for variant in aot.all_variants()]


@pytest.fixture(scope="module", params=TRITONS.values(), ids=TRITONS.keys())
def toys(request: pytest.FixtureRequest) -> dict[str, dict[str, Any]]:
    return reports(run("--json", "--variants", "toys.good", "toys.broken", triton=request.param))


def test_what_keeps_its_limits_is_not_complained_of(toys: dict[str, dict[str, Any]]) -> None:
    add, product = toys["toys/add fp32 1024"], toys["toys/product bf16 128x128x64"]
    assert add["broken"] == product["broken"] == []
    assert add["opcodes"] == {"LDG": add["wide_loads"]}
    assert product["opcodes"]["HGMMA"] == 4
    assert product["shared"] == 3 * (128 + 128) * 64 * 2


@pytest.mark.parametrize(
    ("variant", "complaint"),
    [
        ("add registers", "registers, at most 8"),
        ("add narrow", "no 16-byte load"),
        ("add hgmma", "no HGMMA"),
        ("product spills", "bytes of stack"),
        ("product types", "does not compile: Both operands must be same dtype"),
        ("product names", "unknown or not of run time: deep"),
    ],
)
def test_a_broken_limit_is_named(toys: dict[str, dict[str, Any]], variant: str, complaint: str) -> None:
    assert complaint in "; ".join(toys[f"toys/{variant}"]["broken"])


@pytest.mark.parametrize(("capability", "instruction"), [(80, "HMMA"), (100, "UTCHMMA")])
def test_other_architectures_have_their_own_matrix_instructions(capability: int, instruction: str) -> None:
    product = reports(run("--json", "--capability", capability, "--variants", "toys.good"))[
        "toys/product bf16 128x128x64"
    ]
    assert product["opcodes"][instruction] > 0 and product["broken"] == []


@pytest.mark.parametrize(("module", "status"), [("toys.good", 0), ("toys.broken", 1), ("toys.missing", 2)])
def test_the_exit_status_tells_what_happened(module: str, status: int) -> None:
    assert run("--variants", module).returncode == status


def test_the_table_has_limits_beside_values_and_says_what_columns_mean() -> None:
    done = run("--variants", "toys.good", "toys.broken")
    row = {line[:20].strip(): line for line in done.stdout.splitlines()}
    assert "> 8 (!)" in row["toys/add registers"]
    assert "<= 32" in row["toys/add narrow"] and "must (!)" in row["toys/add narrow"]
    assert all(f"\n{name}:" in done.stdout for name in aot_tables.COLUMNS)
    assert "8 compiled, 6 broken:" in done.stdout
    assert "[8/8]" in done.stderr  # each is told as it is done


def test_the_page_has_a_table_for_each_triton() -> None:
    paths = [option for folder in BESIDE.values() for option in ("--triton-path", folder)]
    page = run("--markdown", "--variants", "toys.good", *paths).stdout
    assert page.count("### triton ") == max(len(BESIDE), 1)
    assert page.count("| toys/add fp32 1024 |") == 1 + page.count("### triton ")
    assert "| `add` | Sum of two vectors. |" in page


def test_the_interpreter_is_refused_with_the_remedy() -> None:
    done = run(interpret=True)
    assert done.returncode == 2 and "unset it (env -u TRITON_INTERPRET" in done.stderr


def test_a_folder_without_triton_is_refused(tmp_path: Path) -> None:
    done = run("--variants", "toys.good", triton=tmp_path)
    assert done.returncode == 2 and f"no triton in {tmp_path}" in done.stderr


@pytest.mark.parametrize(
    ("line", "opcode"),
    [
        ("        /*0010*/                   S2R R0, SR_TID.X ;", "S2R"),
        ("        /*1a30*/              @!P0 LDG.E.128 R4, desc[UR4][R2.64] ;", "LDG.E.128"),
        ("        /*12340*/             @UP1 UTMALDG.2D [UR8], [UR4] ;", "UTMALDG.2D"),
        ("        /*17f0*/                   NOP;  /* 0x0000000000007918 */", "NOP"),
    ],
)
def test_an_instruction_is_found_behind_its_predicate(line: str, opcode: str) -> None:
    assert machine_code.INSTRUCTION.findall(line) == [opcode]


@pytest.mark.parametrize(
    ("opcode", "wide"),
    [
        ("LDG.E.128", True),
        ("LDG.E.128.CONSTANT", True),
        ("LDGSTS.E.BYPASS.128", True),
        ("UTMALDG.2D", True),
        ("LDG.E.U16", False),
        ("LDG.E.64", False),
        ("LDS.128", False),
        ("STG.E.128", False),
    ],
)
def test_a_load_is_wide_if_it_brings_sixteen_bytes_from_global_memory(opcode: str, wide: bool) -> None:
    assert machine_code.is_wide_load(opcode) is wide


@pytest.mark.parametrize(
    ("registers", "shared", "warps", "blocks"),
    [
        (32, 0, 4, 16),
        (40, 0, 4, 12),
        (48, 0, 4, 10),
        (176, 82 * 1024, 4, 2),
        (105, 39 * 1024, 4, 4),
        (49, 0, 1, 32),
    ],
)
def test_blocks_share_registers_memory_and_warps(registers: int, shared: int, warps: int, blocks: int) -> None:
    assert machine_code.blocks_per_sm(registers, shared, warps, 90) == blocks


def test_a_name_given_twice_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(HERE)
    with pytest.raises(ValueError, match="given twice: toys/add"):
        aot.all_variants(["toys.good", "toys.good"])


def test_the_function_refuses_the_interpreter_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(HERE)
    toy, _ = aot.all_variants(["toys.good"])
    with pytest.raises(RuntimeError, match="TRITON_INTERPRET is set"):
        aot.compile_variant(toy)


def test_the_page_has_every_operation_kernel_and_variant() -> None:
    page, variants = PAGE.read_text(), aot.all_variants()
    assert page.startswith(aot_tables.described(variants)), f"write it anew: {WRITE}"
    for table in page.split("### triton ")[1:]:
        assert [line.split(" | ")[0].strip("| ") for line in table.splitlines()[4:] if line] == [
            v.name for v in variants
        ]


def test_every_kernel_says_what_it_does() -> None:
    assert [v.name for v in aot.all_variants() if not aot_tables.function(v).__doc__] == []
