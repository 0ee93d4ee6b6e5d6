#!/usr/bin/env python3
"""How near the int8 products' inner loops come to the ceilings of ARM processors, without a board: the loop over k of the largest
tile of kernels/matmul_i8, as the compiler made it, in llvm-mca's model of each processor. And how many instructions a whole product
takes, counted in qemu.

    tests/bench/arm.py [--build build/aarch64]

Configures the preset aarch64 where the build folder is missing, and compiles what it looks at. The model knows no caches, and never
pairs a load with a product on cortex-a55. Where a share is less than what is wanted, the exit code is 1. (Debian:
g++-aarch64-linux-gnu llvm-19 qemu-user)
"""

import argparse
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ISAS = ["neon", "dotprod", "i8mm"]
MACS = {"smull": 8, "smull2": 8, "smlal": 8, "smlal2": 8, "sdot": 16, "smmla": 32}  # of an instruction
STEPS = 1000
SHAPE = (128, 384, 384)  # rows, terms, columns

# Instruction set, processor, multiply-accumulates a cycle, what bounds them, the share wanted (0: none).
PROCESSORS = [
    ("neon", "cortex-a72", 8, "one smull or smlal a cycle; sadalp goes to the other pipe", 0.90),
    ("neon", "cortex-a53", 64 / 12, "one vector operation a cycle; smull, smlal and sadalp make 16 products", 0),
    ("neon", "cortex-a55", 64 / 12, "as cortex-a53", 0),
    ("dotprod", "neoverse-n1", 32, "two sdot a cycle", 0.85),
    ("dotprod", "cortex-a55", 16, "one sdot a cycle", 0),
    ("i8mm", "neoverse-n2", 64, "two smmla a cycle", 0.80),
]


def output_of(*command, text: str | None = None) -> str:
    return subprocess.run([str(part) for part in command], check=True, input=text, stdout=subprocess.PIPE, text=True).stdout


def build(folder: Path) -> dict:  # instruction set: object file
    if not (folder / "build.ninja").exists():
        output_of("cmake", "--preset", "aarch64", "-S", ROOT, "-B", folder)
    objects = {isa: f"kernels/CMakeFiles/heed_kernels_{isa}.dir/matmul_i8/matmul_i8.simd.cpp.o" for isa in ISAS}
    output_of("ninja", "-C", folder, "-j1", "--quiet", *objects.values(), "heed_kernels")
    return {isa: folder / path for isa, path in objects.items()}


# --- The loop ---------------------------------------------------------------------------------------------------------


@dataclass
class Loop:
    rows: int
    columns: int
    code: list  # (mnemonic, operands)

    def macs(self) -> int:
        return sum(MACS.get(mnemonic, 0) for mnemonic, _ in self.code)

    def spills(self) -> int:
        return sum("[sp" in operands for _, operands in self.code)


def loops(file: Path):
    """The innermost loops of the tiles: from the target of a backward branch to it, without another branch between."""
    tile, height, code = None, 1, []  # code: (address, mnemonic, operands)
    for line in output_of("aarch64-linux-gnu-objdump", "-dC", "--no-show-raw-insn", file).splitlines():
        if re.match(r"[0-9a-f]+ <", line):
            tile, height, code = re.search(r"::tile<(\d+), (\d+)>", line), 2 if "JoinedI8" in line else 1, []
        found = re.match(r"\s*([0-9a-f]+):\t(\S+)\s*([^/]*)", line)
        if not found or not tile:
            continue
        address, mnemonic, operands = int(found[1], 16), found[2], found[3].strip()
        if branch := re.match(r"(.*?)([0-9a-f]+) <", operands):
            begin = int(branch[2], 16)
            if body := [step[1:] for step in code if step[0] >= begin]:
                yield Loop(height * int(tile[1]), 4 * int(tile[2]), [*body, (mnemonic, branch[1] + ".Lloop")])
            code = []  # whatever begins before a branch is no innermost loop
        else:
            code.append((address, mnemonic, operands))


def largest(file: Path) -> Loop:
    return max(loops(file), key=lambda loop: (loop.rows * loop.columns, loop.macs(), loop.rows))


# --- The processor ----------------------------------------------------------------------------------------------------


def mca() -> str:
    for name in ["llvm-mca-19", *(f"llvm-mca-{version}" for version in range(30, 13, -1)), "llvm-mca"]:
        if subprocess.run(["which", name], capture_output=True).returncode == 0:
            return name
    sys.exit("no llvm-mca: apt install llvm-19")


def cycles(tool: str, loop: Loop, processor: str) -> float:
    text = ".Lloop:\n" + "".join(f"{mnemonic} {operands}\n" for mnemonic, operands in loop.code)
    report = output_of(tool, "-mtriple=aarch64", f"-mcpu={processor}", f"-iterations={STEPS}", text=text)
    return int(re.search(r"Total Cycles:\s+(\d+)", report)[1]) / STEPS


# --- A whole product --------------------------------------------------------------------------------------------------


def counted(folder: Path) -> dict:  # instruction set: instructions of a multiply-accumulate
    here, found = Path(__file__).parent, {}
    with tempfile.TemporaryDirectory() as made:
        plugin, program = Path(made, "count.so"), Path(made, "product_i8")
        output_of("gcc", "-O2", "-shared", "-fPIC", here / "count_instructions.c", "-o", plugin)
        output_of("aarch64-linux-gnu-g++", "-O2", "-std=c++20", f"-I{ROOT}", here / "product_i8.cpp", "-o", program,
                  folder / "kernels/libheed_kernels.a")
        for isa in ISAS:
            run = ["qemu-aarch64", "-cpu", "max", "-L", "/usr/aarch64-linux-gnu", "-plugin", plugin, program, isa, *map(str, SHAPE)]
            once, twice = (int(subprocess.run([*run, times], check=True, stderr=subprocess.PIPE).stderr) for times in "12")
            found[isa] = (twice - once) / (SHAPE[0] * SHAPE[1] * SHAPE[2])
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=Path, default=ROOT / "build/aarch64")
    arguments = parser.parse_args()
    tool, objects, missed = mca(), build(arguments.build.resolve()), []
    print(f"{output_of('aarch64-linux-gnu-g++', '--version').splitlines()[0]}, {tool}\n")
    head = ["kernel", "processor", "tile", "instructions", "a MAC", "spills", "cycles", "MAC/cycle", "ceiling", "share", "wanted"]
    print("| " + " | ".join(head) + " |\n|---|---|" + "---:|" * (len(head) - 2))
    for isa, processor, ceiling, _, wanted in PROCESSORS:
        loop = largest(objects[isa])
        count, macs, took = len(loop.code), loop.macs(), cycles(tool, loop, processor)
        share = macs / took / ceiling
        print(f"| {isa} | {processor} | {loop.rows}x{loop.columns} | {count} | {count / macs:.3f} | {loop.spills()} | {took:.1f} | "
              f"{macs / took:.1f} | {ceiling:.1f} | {share:.0%} | {f'{wanted:.0%}' if wanted else ''} |")
        if share < wanted:
            missed.append(f"{isa} on {processor}: {share:.1%} of {wanted:.0%}")
    print("\nThe ceilings:\n")
    for isa, processor, ceiling, why, _ in PROCESSORS:
        print(f"- {isa}, {processor}: {ceiling:.1f}, {why}.")
    print(f"\nInstructions for a MAC, of {'x'.join(map(str, SHAPE))} with scales and bias, counted in qemu:")
    print(", ".join(f"{isa} {count:.3f}" for isa, count in counted(arguments.build.resolve()).items()) + ".")
    for words in missed:
        print("missed:", words, file=sys.stderr)
    return bool(missed)


if __name__ == "__main__":
    sys.exit(main())
