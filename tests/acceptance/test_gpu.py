"""The GPU pool: with devices that are only named, and with real ones."""

import re
from pathlib import Path

import pynvml
import pytest

from tests.acceptance.driver import Node, Site, WholeSite

pytestmark = pytest.mark.xdist_group("server")

EXCLUSIVE = """
cwlVersion: v1.2
class: Workflow
$namespaces: {spdf: "https://spdf.readthedocs.io/ns#"}
requirements: {ScatterFeatureRequirement: {}}
inputs: {files: "File[]", locks: string}
outputs: {out: {type: "File[]", outputSource: fit/out}}
steps:
  fit:
    scatter: file
    in: {file: files, locks: locks}
    out: [out]
    hints: {spdf:Stage: {device: GPU, retry: 0}}
    run:
      class: CommandLineTool
      inputs: {file: File, locks: {type: string, inputBinding: {position: 1}}}
      baseCommand: [sh, -c]
      arguments:
        - >-
          mkdir "$0/$CUDA_VISIBLE_DEVICES" && sleep 0.3 && rmdir "$0/$CUDA_VISIBLE_DEVICES"
          && echo "$CUDA_DEVICE_ORDER $CUDA_VISIBLE_DEVICES"
      stdout: device.txt
      outputs: {out: stdout}
"""
"""A payload that fails where another one has its device at the same time."""

SQUARES = '''
import ctypes, sys
PTX = b"""
.version 6.0
.target sm_50
.address_size 64
.visible .entry square(.param .u64 data)
{
    .reg .u32 %i; .reg .u32 %v; .reg .u64 %p; .reg .u64 %o;
    ld.param.u64 %p, [data];
    cvta.to.global.u64 %p, %p;
    mov.u32 %i, %tid.x;
    mul.wide.u32 %o, %i, 4;
    add.u64 %p, %p, %o;
    ld.global.u32 %v, [%p];
    mul.lo.u32 %v, %v, %v;
    st.global.u32 [%p], %v;
    ret;
}
\\x00"""
cuda = ctypes.CDLL("libcuda.so.1")
def call(name, *arguments):
    code = getattr(cuda, name)(*arguments)
    if code:
        sys.exit(f"{name} gave {code}")
count, device, context = ctypes.c_int(), ctypes.c_int(), ctypes.c_void_p()
module, function, memory = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_uint64()
call("cuInit", 0)
call("cuDeviceGetCount", ctypes.byref(count))
call("cuDeviceGet", ctypes.byref(device), 0)
call("cuCtxCreate_v2", ctypes.byref(context), 0, device)
call("cuModuleLoadData", ctypes.byref(module), PTX)
call("cuModuleGetFunction", ctypes.byref(function), module, b"square")
values = (ctypes.c_uint32 * 256)(*range(256))
size = ctypes.c_size_t(ctypes.sizeof(values))
call("cuMemAlloc_v2", ctypes.byref(memory), size)
call("cuMemcpyHtoD_v2", memory, values, size)
argument = (ctypes.c_void_p * 1)(ctypes.cast(ctypes.byref(memory), ctypes.c_void_p))
call("cuLaunchKernel", function, 1, 1, 1, 256, 1, 1, 0, None, argument, None)
call("cuCtxSynchronize")
call("cuMemcpyDtoH_v2", values, memory, size)
print(count.value, sum(values))
'''
"""A CUDA program on the driver alone: prints how many devices it sees, and a sum of squares."""

REAL = """
cwlVersion: v1.2
class: Workflow
$namespaces: {spdf: "https://spdf.readthedocs.io/ns#"}
requirements: {ScatterFeatureRequirement: {}}
inputs: {files: "File[]", program: File}
outputs: {out: {type: "File[]", outputSource: fit/out}}
steps:
  fit:
    scatter: file
    in: {file: files, program: program}
    out: [out]
    hints: {spdf:Stage: {device: GPU, retry: 0}}
    run:
      class: CommandLineTool
      inputs: {file: File, program: {type: File, inputBinding: {position: 1}}}
      baseCommand: [python3]
      stdout: squares.txt
      outputs: {out: stdout}
"""


def has_gpu() -> bool:
    """Whether NVML finds a device."""
    try:
        pynvml.nvmlInit()
        count: int = pynvml.nvmlDeviceGetCount()
        pynvml.nvmlShutdown()
    except pynvml.NVMLError:
        return False
    return count > 0


def test_each_job_has_its_own_of_the_named_devices(
    whole_site: WholeSite, nodes: list[Node], tmp_path: Path
) -> None:
    site = whole_site
    made = site.copied("raw-0012", 12)
    (tmp_path / "exclusive.cwl").write_text(EXCLUSIVE)
    site.template(tmp_path / "exclusive.cwl", "raw-0012")
    locks = tmp_path / "locks"
    locks.mkdir()
    nodes.append(site.start_node("gpus", "--slots", 8, pool="gpu", SPDF_DEVICES="0,3"))
    site.online("gpus")
    workflow = site.json("workflow", "submit", "exclusive", "raw-0012", "--input", f"locks={locks}")
    site.finished(int(workflow["id"]))
    assert site.jobs(int(workflow["id"])) == {"FINISHED": len(made)}
    told = _printed(site, int(workflow["id"]), tmp_path)
    assert set(told) == {"PCI_BUS_ID 0", "PCI_BUS_ID 3"}
    assert not list(locks.iterdir())
    (shown,) = site.json("worker", "show", "gpus")["workers"]
    assert [device["number"] for device in shown["devices"]] == [0, 3]


def test_a_stage_that_needs_more_devices_than_the_node_has_is_held(
    whole_site: WholeSite, nodes: list[Node], tmp_path: Path
) -> None:
    site = whole_site
    site.copied("raw-0002", 2)
    greedy = EXCLUSIVE.replace("device: GPU, retry: 0", "device: GPU").replace(
        "hints: {spdf:Stage",
        'hints: {"http://commonwl.org/cwltool#CUDARequirement": {cudaDeviceCountMin: 3,'
        ' cudaVersionMin: "11.0", cudaComputeCapability: "5.0"}, spdf:Stage',
    )
    (tmp_path / "greedy.cwl").write_text(greedy)
    site.template(tmp_path / "greedy.cwl", "raw-0002")
    nodes.append(site.start_node("small", "--slots", 2, pool="gpu", SPDF_DEVICES="0"))
    site.online("small")
    found = site.json("workflow", "submit", "greedy", "raw-0002", "--input", f"locks={tmp_path}")
    workflow = int(found["id"])
    site.reaches(workflow, {"HELD": 2})
    ((error, reason),) = site.rows(
        "SELECT DISTINCT job.error, job.reason FROM job JOIN task ON task.id = task_id"
        " WHERE workflow_id = ?",
        workflow,
    )
    assert error == "NODE_TOO_SMALL"
    assert re.search(r"needs 3 GPU for each job, and the node small has fewer", reason)
    site.spdf("workflow", "cancel", workflow)


@pytest.mark.gpu
@pytest.mark.skipif(not has_gpu(), reason="NOT TESTED: this machine has no GPU")
def test_a_real_cuda_payload_runs_on_a_real_device(site: Site, tmp_path: Path) -> None:
    program = tmp_path / "squares.py"
    program.write_text(SQUARES)
    (tmp_path / "cuda.cwl").write_text(REAL)
    paths = site.write("cuda", {f"f{n}.dat": b"x" for n in range(4)})
    site.dataset("cuda-files", paths)
    site.template(tmp_path / "cuda.cwl", "cuda-files")
    given = ("--input", f"program={program}")
    workflow = int(site.json("workflow", "submit", "cuda", "cuda-files", *given)["id"])
    site.finished(workflow)
    told = [path.read_text() for _, _, path in site.outputs(workflow, "fit", "out")]
    assert told == [f"1 {sum(n * n for n in range(256))}\n"] * 4


def _printed(site: WholeSite, workflow: int, target: Path) -> list[str]:
    """What the payloads of a workflow printed, without line ends."""
    name = site.one(
        "SELECT d.name FROM dataset d JOIN task ON task.id = d.task_id"
        " WHERE workflow_id = ? AND port = 'out'",
        workflow,
    )
    site.spdf("dataset", "get", name, target / "got")
    return [path.read_text().strip() for path in (target / "got").rglob("*.txt")]
