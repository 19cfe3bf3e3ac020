"""The benchmark on a phone, by an adb that is a script: what it is told, and what is read."""

import json
import stat

import pytest

from tests.command_line import run
from tflite.devices.adb import (
    Device,
    OperationTime,
    benchmark_with_binary,
    find_phone,
    read_latency,
    read_operations,
)

# What benchmark_model prints, of a network with one operation twice.
OUTPUT = """INFO: STARTING!
INFO: Log parameter values verbosely: [0]
INFO: Num threads: [{threads}]
INFO: Graph: [{graph}]
INFO: #threads used for CPU inference: [{threads}]
INFO: Loaded model {graph}
INFO: Initialized TensorFlow Lite runtime.
INFO: Created TensorFlow Lite XNNPACK delegate for CPU.
INFO: The input model file size (MB): 0.320112
INFO: Initialized session in 20.283ms.
INFO: Running benchmark for at least 1 iterations and at least 0.5 seconds but terminate if \
exceeding 150 seconds.
INFO: count=2 first=39304 curr=26325 min=26325 max=39304 avg=32814 std=6489 p5=26325 \
median=39304 p95=39304

INFO: Running benchmark for at least 17 iterations and at least 1 seconds but terminate if \
exceeding 150 seconds.
INFO: count=17 first=26601 curr=26931 min=26112 max=28115 avg=1.26473e+04 std=419 p5=26201 \
median={median} p95=27900

INFO: Inference timings in us: Init: 20283, First inference: 39304, Warmup (avg): 32814, \
Inference (avg): 1.26473e+04
INFO: Note: as the benchmark tool itself affects memory footprint, the following is only \
APPROXIMATE to the actual memory footprint of the model at runtime. Take the information at your \
discretion.
INFO: Memory footprint delta from the start of the tool (MB): init=1.25 overall=6.5
"""
PROFILE = """INFO: Profiling Info for Benchmark Initialization:
============================== Run Order ==============================
\t             [node type]\t  [first]\t [avg ms]\t     [%]\t  [cdf%]\t  [mem KB]\t[times called]\t[Name]
\t         AllocateTensors\t    1.356\t    1.356\t100.000%\t100.000%\t     0.000\t        1\tAllocateTensors/0

============================== Summary by node type ==============================
\t             [Node type]\t  [count]\t  [avg ms]\t    [avg %]\t    [cdf %]\t  [mem KB]\t[times called]
\t         AllocateTensors\t        1\t     1.356\t   100.000%\t   100.000%\t     0.000\t        1

Timings (microseconds): count=1 curr=1356
Memory (bytes): count=0
1 nodes observed



INFO: Operator-wise Profiling Info for Regular Benchmark Runs:
============================== Run Order ==============================
\t             [node type]\t  [first]\t [avg ms]\t     [%]\t  [cdf%]\t  [mem KB]\t[times called]\t[Name]
\t                QUANTIZE\t    0.199\t    0.203\t  1.328%\t  1.328%\t     0.000\t        1\t[quantize]:0

Number of nodes executed: 3
============================== Summary by node type ==============================
\t             [Node type]\t  [count]\t  [avg ms]\t    [avg %]\t    [cdf %]\t  [mem KB]\t[times called]
\t                 SOFTMAX\t        1\t     0.203\t     1.328%\t   100.000%\t     0.000\t        1
\tConvolution (NHWC, QC8) IGEMM\t        2\t    15.081\t    98.672%\t    98.672%\t     0.000\t        2

Timings (microseconds): count=50 first=15301 curr=15301 min=15102 max=15900 avg=15284 std=1
Memory (bytes): count=0
3 nodes observed
"""  # noqa: E501
ADB = r"""#!/bin/sh
printf '%s\n' "$*" >> "$FAKE_ADB/calls"
case "$1" in
    devices) printf 'List of devices attached\n'; cat "$FAKE_ADB/devices"; printf '\n'; exit ;;
    -s) shift 2 ;;
esac
case "$1 $2" in
    push\ *) [ -f "$2" ] || { echo "adb: error: cannot stat '$2'"; exit 1; } ;;
    'shell getprop ro.product.manufacturer') echo Google ;;
    'shell getprop ro.product.model') echo 'Pixel 8' ;;
    'shell getprop ro.build.version.release') echo 16 ;;
    *enable_op_profiling*) cat "$FAKE_ADB/output" "$FAKE_ADB/profile" ;;
    *benchmark_model\ --graph*) cat "$FAKE_ADB/output"; exit "$(cat "$FAKE_ADB/status")" ;;
esac
"""


@pytest.fixture
def phone(tmp_path, monkeypatch):
    """A folder that says what adb answers; ``calls`` in it holds what adb was asked."""
    folder = tmp_path / "adb"
    folder.mkdir()
    (folder / "adb").write_text(ADB)
    (folder / "adb").chmod(0o755)
    (folder / "devices").write_text("8A1X0ABCD\tdevice\n")
    (folder / "output").write_text(OUTPUT.format(threads=1, graph="x", median=26500))
    (folder / "profile").write_text(PROFILE)
    (folder / "status").write_text("0")
    monkeypatch.setenv("FAKE_ADB", str(folder))
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.delenv("ANDROID_SERIAL", raising=False)
    return folder


@pytest.fixture
def program(tmp_path):
    path = tmp_path / "android_aarch64_benchmark_model"
    path.write_bytes(b"\x7fELF")
    return path


@pytest.fixture
def models(tmp_path):
    paths = {kind: tmp_path / f"model_{kind}.tflite" for kind in ("float32", "int8")}
    for path in paths.values():
        path.write_bytes(b"\x1c\0\0\0TFL3" + bytes(8))
    return paths


def test_files_are_interleaved_on_the_phone_and_removed_afterwards(phone, program, models):
    steps = []
    records = benchmark_with_binary(
        models,
        program,
        phone=True,
        threads=(1, 4),
        rounds=50,
        progress=lambda *step: steps.append(step),
    )
    calls = (phone / "calls").read_text().splitlines()
    runs = [call for call in calls if "--graph" in call]
    timed = [call for call in runs if "profiling" not in call]
    graphs = [call.split("--graph=")[1].split()[0].rsplit("/", 1)[1] for call in timed]
    assert graphs == ["float32.tflite", "int8.tflite"] * 3 * 2
    assert ["--num_threads=4" in call for call in timed] == [False] * 6 + [True] * 6
    assert all("--num_runs=17" in call and call.startswith("-s 8A1X0ABCD shell /") for call in runs)
    pushed = [call.split()[-1] for call in calls if " push " in call]
    assert len(pushed) == 3
    folder = pushed[0].rsplit("/", 1)[0]
    assert folder.startswith("/data/local/tmp/keras-resnet-")
    assert calls[-1] == f"-s 8A1X0ABCD shell rm -rf {folder}"
    assert steps[0] == (1, 16) and steps[-1] == (16, 16)

    kinds = [(r.latency.kind, r.latency.threads) for r in records]
    assert kinds == [("float32", 1), ("int8", 1), ("float32", 4), ("int8", 4)]
    told = records[0].latency
    assert told.device == "Google Pixel 8, Android 16"
    assert (told.runs, told.median_ms, told.p95_ms) == (51, 26.5, 27.9)
    assert (told.load_ms, told.first_ms) == (20.283, 39.304)
    assert told.memory_bytes == 6.5 * 2**20 and told.bytes == 16
    assert told.p90_ms is None and told.p99_ms is None  # which the program does not tell
    assert records[0].operations[0].operation == "Convolution (NHWC, QC8) IGEMM"


def test_operations_are_those_of_the_runs_and_not_of_the_start():
    assert read_operations(OUTPUT + PROFILE) == (
        OperationTime("Convolution (NHWC, QC8) IGEMM", 2, 15.081, 98.672),
        OperationTime("SOFTMAX", 1, 0.203, 1.328),
    )
    assert read_operations(OUTPUT) == ()


def test_each_measure_is_the_median_of_the_runs(phone, program, models):
    """Three runs take 26.5, 90 and 27 ms: the phone was busy during one."""
    texts = [OUTPUT.format(threads=1, graph="x", median=m) for m in (26500, 90000, 27000)]
    for i, text in enumerate(texts):
        (phone / f"run{i}").write_text(text)
    (phone / "adb").write_text(
        ADB.replace(
            '*benchmark_model\\ --graph*) cat "$FAKE_ADB/output"',
            '*benchmark_model\\ --graph*) cat "$FAKE_ADB/run'
            '$(( $(grep -c -- --graph "$FAKE_ADB/calls") - 1 ))"',
        )
    )
    one = {"int8": models["int8"]}
    (record,) = benchmark_with_binary(one, program, phone=True, threads=(1,))
    assert record.latency.median_ms == 27


def test_a_run_that_fails_is_one_line_and_leaves_nothing(phone, program, models):
    (phone / "status").write_text("1")
    (phone / "output").write_text("INFO: STARTING!\nERROR: Failed to load model x.tflite\n")
    with pytest.raises(ValueError, match=r"failed: ERROR: Failed to load model x\.tflite"):
        benchmark_with_binary(models, program, phone=True)
    assert "rm -rf /data/local/tmp/keras-resnet-" in (phone / "calls").read_text().splitlines()[-1]


def test_an_old_binary_that_prints_no_median_is_refused(tmp_path):
    old = "count=50 first=266601 curr=266931 min=265837 max=268116 avg=266473 std=419\n"
    old += "Inference timings in us: Init: 20283, First inference: 339304, Warmup (avg): 302814, "
    with pytest.raises(ValueError, match="printed no median"):
        read_latency(old + "Inference (avg): 266473\n", "int8", 1, tmp_path / "x", "phone")


@pytest.mark.parametrize(
    ("devices", "message"),
    [
        ("", "adb sees no phone"),
        ("A\tdevice\nB\tdevice\n", "several phones: A, B. Name one: ANDROID_SERIAL=A"),
        ("A\tunauthorized\n", "A is unauthorized. Unlock it and allow USB debugging"),
        ("A\toffline\n", "A is offline. Unplug it"),
        ("A\tno permissions (verify udev rules); see [x]\n", r"A is no permissions \(verify"),
    ],
)
def test_what_adb_says_of_phones(phone, devices, message):
    (phone / "devices").write_text(devices)
    with pytest.raises(ValueError, match=message):
        find_phone()


def test_one_of_several_phones_can_be_named(phone, monkeypatch):
    (phone / "devices").write_text("A\tunauthorized\nB\tdevice\n")
    monkeypatch.setenv("ANDROID_SERIAL", "B")
    assert find_phone().prefix[1:] == ("-s", "B", "shell")
    monkeypatch.setenv("ANDROID_SERIAL", "C")
    with pytest.raises(ValueError, match=r"sees no phone C, which ANDROID_SERIAL names; .* A, B"):
        find_phone()


def test_no_adb_and_no_program_say_where_to_get_them(phone, program, models, monkeypatch):
    with pytest.raises(ValueError, match=r"Download https://.*android_aarch64_benchmark_model"):
        benchmark_with_binary(models, None, phone=True)
    with pytest.raises(ValueError, match="There is no benchmark binary"):
        benchmark_with_binary(models, program.with_name("no"), phone=True)
    (phone / "adb").unlink()
    monkeypatch.setenv("PATH", str(phone))
    with pytest.raises(ValueError, match=r"no adb on PATH\. Install Android's platform-tools"):
        benchmark_with_binary(models, program, phone=True)


def test_the_program_runs_on_this_machine_too(phone, models, tmp_path):
    """As it comes from a download: not executable."""
    program = tmp_path / "linux_x86-64_benchmark_model"
    program.write_text(
        '#!/bin/sh\n[ -f "${1#--graph=}" ] || exit 1\n'
        f'cat "{phone}/output"\ncase "$*" in *profiling*) cat "{phone}/profile" ;; esac\n'
    )
    assert not program.stat().st_mode & stat.S_IXUSR
    records = benchmark_with_binary(models, program, phone=False, threads=(1,))
    assert [r.latency.median_ms for r in records] == [26.5, 26.5]
    assert len(records[0].operations) == 2
    assert not (phone / "calls").exists()


def test_words_reach_the_phones_shell_whole():
    assert Device("x", ("echo",)).run("rm", "a b; c") == "rm 'a b; c'\n"


@pytest.fixture
def run_folder(models, tmp_path):
    folder = tmp_path / "run"
    (folder / "tflite").mkdir(parents=True)
    (folder / "model.keras").touch()
    for path in models.values():
        path.rename(folder / "tflite" / path.name)
    return folder


def test_the_command_shows_and_keeps_what_the_phone_tells(phone, program, run_folder, capsys):
    options = ("--adb", "--benchmark-binary", program, "--threads", 2)
    assert run("benchmark", run_folder, *options, "--json") == 0
    records = json.loads(capsys.readouterr().out)
    assert [(r["kind"], r["threads"], r["median_ms"]) for r in records] == [
        ("float32", 2, 26.5),
        ("int8", 2, 26.5),
    ]
    kept = json.loads((run_folder / "tflite/benchmark_phone.json").read_text())
    assert kept == records
    assert not (run_folder / "tflite/benchmark.json").exists()  # which is of this machine
    assert run("benchmark", run_folder, *options) == 0
    shown = capsys.readouterr().out
    assert "Google Pixel 8, Android 16" in shown and "26.50 ms" in shown
    assert "Convolution (NHWC, QC8) IGEMM" in shown


def test_the_command_says_in_one_line_what_is_missing(phone, run_folder, capsys):
    (phone / "devices").write_text("")
    assert run("benchmark", run_folder, "--adb") == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("keras-resnet: error: adb sees no phone. Connect one")
