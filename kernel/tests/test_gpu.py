"""Cells on an NVIDIA GPU. `bash tests/gpu.sh` runs these tests on a machine with a GPU, with the library compiled for it."""

import json
import os
import subprocess
import time
from pathlib import Path

import pytest

from driver import Kernel

pytestmark = pytest.mark.skipif(not os.environ.get("WAVEMESH_TEST_GPU"), reason="needs an NVIDIA GPU: bash tests/gpu.sh")

START = "use wavemesh::device::{gpu_info, trim_gpu_memory};\nlet device = best_device()?;"
NET = """
let vars = VarMap::new();
let conv = SubMConv3d::new(4, 8, 3, ConvConfig::default(), VarBuilder::from_varmap(&vars, DType::F32, &device))?;
let coords: Vec<[i32; 4]> = (0..4096).map(|i| [0, i / 256, i / 16 % 16, i % 16]).collect();
let x = SparseConvTensor::from_coords(Tensor::rand(0f32, 1f32, (4096, 4), &device)?, coords, [16, 16, 16], 1)?;
"""


@pytest.fixture(scope="module")
def notebook():
    """A kernel with the variable `device`, the GPU."""
    with Kernel() as kernel:
        done(kernel.run(START))
        yield kernel


def done(ran):
    assert ran.status == "ok", "\n".join(ran.reply["content"]["traceback"])
    return ran


def memory_used():
    """MiB of the card's memory that are in use, by any process."""
    said = subprocess.check_output(["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"], text=True)
    return int(said.split()[0])


def falls_to(limit, seconds=20):
    end = time.monotonic() + seconds
    while memory_used() > limit and time.monotonic() < end:
        time.sleep(0.1)
    return memory_used()


def test_the_best_device_is_the_gpu_and_cards_say_so(notebook):
    assert notebook.value("device.location()") == "Cuda { gpu_id: 0 }"
    card = done(notebook.run("Tensor::arange(0f32, 6f32, &device)?.reshape((2, 3))?")).of("execute_result")[-1]["data"]
    assert "cuda:0" in card["text/plain"] and "cuda:0" in card["text/html"], card["text/plain"]
    info = notebook.value("backend_info()")
    assert all(word in info for word in ("cuda", "driver", "compute capability", "kernels for", "GB free")), info


def test_the_card_of_a_large_tensor_copies_only_what_it_shows(notebook):
    """2 GiB of numbers; the growth of the process's own memory shows how much was copied."""
    peak = 'std::fs::read_to_string("/proc/self/status")?.lines().find_map(|l| l.strip_prefix("VmHWM:")?.trim_end_matches("kB").trim().parse::<u64>().ok()).unwrap_or(0) / 1024'
    done(notebook.run("let large = (Tensor::ones((1 << 15, 1 << 14), DType::F32, &device)? * 0.5)?;\nlarge.sum_all()?.to_scalar::<f32>()?"))
    before = int(notebook.value(peak))
    card = done(notebook.run("large.clone()")).of("execute_result")[-1]["data"]["text/plain"]
    assert int(notebook.value(peak)) - before < 500, "the whole tensor was copied"
    assert "cuda:0" in card and "0.5" in card, card
    done(notebook.run("drop(large);\ntrim_gpu_memory(&device)?;"))


def test_layers_and_gradients_of_cells_are_computed_there(notebook):
    done(notebook.run(NET))
    done(notebook.run("let y = conv.forward(&x)?;\nlet grads = y.features().sqr()?.mean_all()?.backward()?;"))
    assert notebook.value("y.device().is_cuda()") == "true"
    assert notebook.value("vars.all_vars().iter().all(|v| grads.get(v).is_some_and(|g| g.device().is_cuda()))") == "true"
    cpu = "let on_cpu = SparseConvTensor::from_coords(x.features().to_device(&Device::Cpu)?, x.coords().to_vec(), [16, 16, 16], 1)?;"
    refused = notebook.run(cpu + "\nconv.forward(&on_cpu)?;")
    assert refused.error and "cuda:0" in str(refused.error) and "cpu" in str(refused.error), refused.reply


def test_a_stop_in_the_midst_of_gpu_work_keeps_variables(notebook):
    done(notebook.run("let kept = Tensor::ones(1000, DType::F32, &device)?;"))
    cell = 'let mut m = Tensor::ones((4096, 4096), DType::F32, &device)?;\nloop { m = (m.matmul(&m)? * 0.0)?; println!("{}", m.get(0)?.get(0)?.to_scalar::<f32>()?); }'
    running = notebook.send(cell)
    messages = notebook.wait_until_running(running)
    notebook.control("interrupt_request")
    messages += notebook.iopub(running)
    reply = notebook.shell(running)
    assert reply["content"]["status"] == "error", reply
    assert notebook.value("kept.sum_all()?.to_scalar::<f32>()?") == "1000.0"
    assert notebook.value("(device.is_cuda(), best_device()?.is_cuda())") == "(true, true)"


def test_a_stop_of_a_cell_that_notices_nothing_leaves_the_gpu_to_the_next(notebook):
    """Without a print or a library loop, the cell is left behind, together with the variables that it uses."""
    done(notebook.run("let kept = Tensor::ones(1000, DType::F32, &device)?;"))
    running = notebook.send('println!("go");\nlet mut n = Tensor::ones((2048, 2048), DType::F32, &device)?;\nloop { n = (n.matmul(&n)? * 0.0)?; }')
    notebook.wait_until_running(running)
    time.sleep(1)
    notebook.control("interrupt_request")
    assert notebook.shell(running, 60)["content"]["status"] == "error"
    done(notebook.run("let device = best_device()?;"))  # the cell used it
    assert notebook.value("kept.sum_all()?.to_scalar::<f32>()?") == "1000.0"


def test_too_much_memory_is_an_error_that_says_how_much_and_keeps_variables(notebook):
    done(notebook.run("let before = Tensor::ones(10, DType::F32, &device)?;"))
    ran = notebook.run("let much = Tensor::zeros((1 << 20, 1 << 20), DType::F32, &device)?;")
    assert ran.error, "a terabyte of f32 was allocated"
    layer = notebook.run(
        "let wide = SubMConv3d::new(4, 1 << 16, 3, ConvConfig::new().bias(false), VarBuilder::from_varmap(&VarMap::new(), DType::F32, &device))?;\n"
        "let outputs: Vec<_> = (0..2000).map(|_| wide.forward(&x)).collect::<Result<_, _>>()?;"
    )
    said = str(layer.error)
    assert layer.error and "free" in said and ("GB" in said or "MB" in said), said
    assert notebook.value("before.sum_all()?.to_scalar::<f32>()?") == "10.0"
    assert notebook.value("conv.forward(&x)?.features().device().is_cuda()") == "true"


def test_memory_that_is_short_in_candles_own_operations_is_told_with_figures(notebook):
    ran = notebook.run("let all: Vec<_> = (0..400).map(|_| Tensor::zeros(1usize << 30, DType::U8, &device)).collect::<Result<_, _>>()?;")
    assert ran.error and "GB are free" in ran.error["evalue"] and "trim_gpu_memory" in ran.error["evalue"], ran.reply
    done(notebook.run("trim_gpu_memory(&device)?;\nTensor::zeros(1usize << 30, DType::U8, &device)?;"))


def test_freed_memory_stays_in_the_pool_until_it_is_trimmed(notebook):
    done(notebook.run("trim_gpu_memory(&device)?;\nlet block = Tensor::zeros(1 << 30, DType::U8, &device)?;"))
    done(notebook.run("drop(block);\ndevice.synchronize()?;"))
    held = int(notebook.value("gpu_info(&device)?.held"))
    assert held >= 1 << 30, held
    done(notebook.run("trim_gpu_memory(&device)?;"))
    assert int(notebook.value("gpu_info(&device)?.held")) < held - (1 << 29)


def test_two_notebooks_share_the_gpu(notebook):
    with Kernel() as other:
        done(other.run(START + NET))
        running = other.send("let mut total = 0f32;\nfor _ in 0..300 { total += conv.forward(&x)?.features().sum_all()?.to_scalar::<f32>()?; }\ntotal.is_finite()")
        assert notebook.value("conv.forward(&x)?.features().sum_all()?.to_scalar::<f32>()?.is_finite()") == "true"
        list(other.iopub(running))
        assert other.shell(running)["content"]["status"] == "ok"


@pytest.fixture(scope="session")
def faults(tmp_path_factory):
    """The environment of a kernel whose driver fails as a file describes."""
    folder = tmp_path_factory.mktemp("faults")
    library = folder / "faults.so"
    source = Path(__file__).parents[2] / "tests/gpu/faults.c"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"], check=True)
    return folder / "fault", os.environ | {"LD_PRELOAD": str(library), "WAVEMESH_TEST_FAULT": str(folder / "fault")}


def test_a_gpu_that_vanishes_leaves_variables_and_the_processor(faults):
    fault, environment = faults
    with Kernel(env=environment) as kernel:
        done(kernel.run(START + NET))
        done(kernel.run("let here = Tensor::ones(4, DType::F32, &Device::Cpu)?;\nlet there = here.to_device(&device)?;"))
        fault.write_text("lost")
        for cell in ["conv.forward(&x)?;", "(&there + 1.0)?;", "there.to_vec1::<f32>()?"]:
            ran = kernel.run(cell)
            assert ran.error and ":restart" in ran.error["evalue"] and "WAVEMESH_DEVICE=cpu" in ran.error["evalue"], (cell, ran.reply)
        assert kernel.value("here.sum_all()?.to_scalar::<f32>()?") == "4.0"
        kernel.run(":restart")
        assert kernel.value("best_device()?.is_cpu()") == "true"
        assert "not used" in kernel.value("backend_info()")
        fault.unlink()
        kernel.run(":restart")
        assert kernel.value("best_device()?.is_cuda()") == "true"


def test_a_driver_that_is_too_old_leaves_the_processor(faults):
    fault, environment = faults
    fault.write_text("old")
    with Kernel(env=environment) as kernel:
        assert kernel.value("best_device()?.is_cpu()") == "true"
        info = kernel.value("backend_info()")
        assert "580 or later" in info and "CUDA 12" in info, info
    fault.unlink()


def test_a_hidden_gpu_leaves_the_cpu_and_is_told():
    with Kernel(env=os.environ | {"CUDA_VISIBLE_DEVICES": ""}) as kernel:
        assert kernel.value("best_device()?.is_cpu()") == "true"
        assert "CUDA_VISIBLE_DEVICES" in kernel.value("backend_info()")


def test_the_processor_can_be_asked_for():
    with Kernel(env=os.environ | {"WAVEMESH_DEVICE": "cpu"}) as kernel:
        assert kernel.value("best_device()?.is_cpu()") == "true"


def test_the_ways_of_an_older_card_are_chosen_on_request():
    with Kernel(env=os.environ | {"WAVEMESH_GPU_CAPABILITY": "7.5"}) as kernel:
        done(kernel.run(START + NET))
        assert kernel.value("conv.forward(&x)?.features().sum_all()?.to_scalar::<f32>()?.is_finite()") == "true"


@pytest.mark.parametrize("end", ["std::process::abort()", "restart"])
def test_memory_is_free_again_when_the_process_of_cells_ends(end):
    with Kernel() as kernel:
        done(kernel.run(START))
        before = memory_used()
        done(kernel.run("let block = Tensor::zeros(4usize << 30, DType::U8, &device)?;\ndevice.synchronize()?;"))
        assert memory_used() > before + 4000
        kernel.run(":restart" if end == "restart" else end)
        assert falls_to(before) <= before
        assert kernel.value("best_device()?.is_cuda()") == "true"


def test_the_quickstart_runs_on_the_gpu():
    notebooks = Path(__file__).parents[2] / "notebooks"
    cells = json.loads((notebooks / "00_quickstart.ipynb").read_text())["cells"]
    with Kernel(cwd=str(notebooks)) as kernel:
        for cell in cells:
            code = "".join(cell["source"])
            if cell["cell_type"] == "code" and not code.startswith("%"):
                done(kernel.run(code))
        assert kernel.value("(device.is_cuda(), x.device().is_cuda(), y.device().is_cuda())") == "(true, true, true)"


def test_doctor_names_driver_and_libraries(program):
    said = subprocess.run([program, "doctor"], capture_output=True, text=True, timeout=200, check=False).stdout
    (line,) = [line for line in said.splitlines() if line.split()[:1] == ["GPU"]]
    assert " ok " in line and "libcublas.so" in line and "cells use it" in line, said
    assert "first answer after" in said, said
