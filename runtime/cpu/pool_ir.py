"""The thread pool as LLVM IR text: `gnn_parallel` and what it needs.

One 64-bit word holds (generation << 32 | parts not yet claimed). A thread claims a part by
lowering the word by one; a claim that succeeds proves that the job read before it is current, for
the caller writes the next job only when all parts are done. The caller claims too, so a region
ends even if no worker ever wakes. Idle workers spin a while and then wait on a condition.
"""

from __future__ import annotations

import string
from dataclasses import dataclass

__all__ = ["MAX_WORKERS", "OFFSETS", "STATE_BYTES", "Platform", "pool_ir"]

MAX_WORKERS = 1023
STATE_BYTES = 1024

# Byte offsets in the state. What idle workers poll, what all threads count down and the job stand
# on cache lines of their own.
OFFSETS = {
    "lock": 0,
    "started": 4,
    "threads": 8,
    "spin": 16,
    "regions": 24,
    "wakes": 32,
    "word": 128,
    "quit": 136,
    "pending": 256,
    "job": 384,
    "sleepers": 512,
    "mutex": 576,
    "condition": 704,
    "attributes": 832,
}

_JOB = ("kernel", "buffers", "sizes", "quotient", "rest", "grain", "total", "parts")


@dataclass(frozen=True)
class Platform:
    """What differs between systems: `windows`, `machine` (as LLVM names it), and for POSIX the
    number of `SIG_SETMASK` and the signals a worker blocks, as the first word of a signal set."""

    windows: bool
    machine: str
    sig_setmask: int = 0
    blocked: int = 0


def pool_ir(platform: Platform) -> str:
    """The module's text; it declares the system functions that it calls."""
    parts = {**_system(platform), "pause": _pause(platform.machine)}
    body = string.Template(_STATE + _PARTS + _WORKER + _PARALLEL + _STOP).substitute(parts)
    return body + parts["declarations"]


def _pause(machine: str) -> str:
    if machine.startswith(("x86", "i686", "i386")):
        return "call void @llvm.x86.sse2.pause()"
    if machine.startswith(("aarch64", "arm64")):
        return "call void @llvm.aarch64.hint(i32 1)"
    return 'fence syncscope("singlethread") seq_cst'


def _system(platform: Platform) -> dict[str, str]:
    return _WINDOWS if platform.windows else _posix(platform)


def _posix(platform: Platform) -> dict[str, str]:
    return {
        "worker_type": "ptr",
        "worker_result": "ptr null",
        "mutex_lock": "call i32 @pthread_mutex_lock(ptr @mutex)",
        "mutex_unlock": "call i32 @pthread_mutex_unlock(ptr @mutex)",
        "wait": "call i32 @pthread_cond_wait(ptr @condition, ptr @mutex)",
        "signal": "call i32 @pthread_cond_signal(ptr @condition)",
        "broadcast": "call i32 @pthread_cond_broadcast(ptr @condition)",
        "yield": "call i32 @sched_yield()",
        # Signals are for the threads of Python; faults must still reach the faulting thread.
        "before_create": f"""%old = alloca [128 x i8], align 16
  %blocked = alloca [128 x i8], align 16
  call void @llvm.memset.p0.i64(ptr %blocked, i8 -1, i64 128, i1 false)
  store i64 {platform.blocked}, ptr %blocked, align 8
  call i32 @pthread_sigmask(i32 {platform.sig_setmask}, ptr %blocked, ptr %old)""",
        "create": """%code = call i32 @pthread_create(ptr %slot, ptr @attributes, ptr @gnn_worker,
    ptr null)
  %bad = icmp ne i32 %code, 0""",
        "after_create": f"""call i32 @pthread_sigmask(i32 {platform.sig_setmask}, ptr %old,
    ptr null)""",
        "join": "call i32 @pthread_join(i64 %thread, ptr null)",
        "declarations": """
declare i32 @pthread_mutex_lock(ptr)
declare i32 @pthread_mutex_unlock(ptr)
declare i32 @pthread_cond_wait(ptr, ptr)
declare i32 @pthread_cond_signal(ptr)
declare i32 @pthread_cond_broadcast(ptr)
declare i32 @pthread_sigmask(i32, ptr, ptr)
declare i32 @pthread_create(ptr, ptr, ptr, ptr)
declare i32 @pthread_join(i64, ptr)
declare i32 @sched_yield()
""",
    }


_WINDOWS = {
    "worker_type": "i32",
    "worker_result": "i32 0",
    "mutex_lock": "call void @AcquireSRWLockExclusive(ptr @mutex)",
    "mutex_unlock": "call void @ReleaseSRWLockExclusive(ptr @mutex)",
    "wait": "call i32 @SleepConditionVariableSRW(ptr @condition, ptr @mutex, i32 -1, i32 0)",
    "signal": "call void @WakeConditionVariable(ptr @condition)",
    "broadcast": "call void @WakeAllConditionVariable(ptr @condition)",
    "yield": "call i32 @SwitchToThread()",
    "before_create": "",
    "create": """%handle = call ptr @CreateThread(ptr null, i64 0, ptr @gnn_worker, ptr null, i32 0,
    ptr null)
  store ptr %handle, ptr %slot, align 8
  %bad = icmp eq ptr %handle, null""",
    "after_create": "",
    "join": """%object = inttoptr i64 %thread to ptr
  call i32 @WaitForSingleObject(ptr %object, i32 -1)
  call i32 @CloseHandle(ptr %object)""",
    "declarations": """
declare void @AcquireSRWLockExclusive(ptr)
declare void @ReleaseSRWLockExclusive(ptr)
declare i32 @SleepConditionVariableSRW(ptr, ptr, i32, i32)
declare void @WakeConditionVariable(ptr)
declare void @WakeAllConditionVariable(ptr)
declare i32 @SwitchToThread()
declare ptr @CreateThread(ptr, i64, ptr, ptr, i32, ptr)
declare i32 @WaitForSingleObject(ptr, i32)
declare i32 @CloseHandle(ptr)
""",
}


def _state_text() -> str:
    """The state, with an alias for each field and for each word of the job."""
    lines = [f"@state = internal global [{STATE_BYTES} x i8] zeroinitializer, align 128"]
    lines.append(f"@threads.running = internal global [{MAX_WORKERS} x i64] zeroinitializer")
    places = dict(OFFSETS)
    job = places.pop("job")
    places |= {f"job.{name}": job + 8 * i for i, name in enumerate(_JOB)}
    for name, offset in places.items():
        place = f"getelementptr (i8, ptr @state, i64 {offset})"
        lines.append(f"@{name} = internal alias i8, ptr {place}")
    return "\n".join(lines) + "\n"


_STATE = (
    _state_text()
    + """
declare i64 @llvm.smin.i64(i64, i64)
declare i64 @llvm.smax.i64(i64, i64)
declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)

define ptr @gnn_pool_state() {
  ret ptr @state
}
"""
)

# Part k has `quotient` grains, and one more while k < `rest`.
_PARTS = """
define internal void @run_part(ptr %kernel, ptr %buffers, ptr %sizes, i64 %quotient, i64 %rest,
    i64 %grain, i64 %total, i64 %part) {
  %whole = mul i64 %part, %quotient
  %extra = call i64 @llvm.smin.i64(i64 %part, i64 %rest)
  %first = add i64 %whole, %extra
  %one.more = icmp slt i64 %part, %rest
  %more = zext i1 %one.more to i64
  %count = add i64 %quotient, %more
  %last = add i64 %first, %count
  %begin = mul i64 %first, %grain
  %edge = mul i64 %last, %grain
  %end = call i64 @llvm.smin.i64(i64 %edge, i64 %total)
  call void %kernel(ptr %buffers, ptr %sizes, i64 %begin, i64 %end, i64 %part)
  ret void
}

define internal void @run_serially(ptr %kernel, ptr %buffers, ptr %sizes, i64 %quotient, i64 %rest,
    i64 %grain, i64 %total, i64 %parts) noinline {
entry:
  br label %loop
loop:
  %part = phi i64 [ 0, %entry ], [ %next, %loop ]
  call void @run_part(ptr %kernel, ptr %buffers, ptr %sizes, i64 %quotient, i64 %rest,
    i64 %grain, i64 %total, i64 %part)
  %next = add i64 %part, 1
  %more = icmp slt i64 %next, %parts
  br i1 %more, label %loop, label %exit
exit:
  ret void
}
"""

_WORKER = """
define i64 @gnn_pool_spin(i64 %limit) {
entry:
  br label %loop
loop:
  %count = phi i64 [ 0, %entry ], [ %next, %look ]
  %word = load atomic i64, ptr @word acquire, align 8
  %open = and i64 %word, 4294967295
  %work = icmp ne i64 %open, 0
  br i1 %work, label %exit, label %quiet
quiet:
  %quit = load atomic i32, ptr @quit monotonic, align 4
  %stop = icmp ne i32 %quit, 0
  br i1 %stop, label %exit, label %look
look:
  $pause
  %next = add i64 %count, 1
  %more = icmp slt i64 %next, %limit
  br i1 %more, label %loop, label %exit
exit:
  %seen = phi i64 [ %word, %loop ], [ %word, %quiet ], [ 0, %look ]
  ret i64 %seen
}

; One wait and no more: who is woken spins again, even if the others were quicker this time.
define internal void @sleep() noinline {
  $mutex_lock
  %before = atomicrmw add ptr @sleepers, i32 1 seq_cst, align 4
  %word = load atomic i64, ptr @word seq_cst, align 8
  %open = and i64 %word, 4294967295
  %work = icmp ne i64 %open, 0
  %quit = load atomic i32, ptr @quit seq_cst, align 4
  %stop = icmp ne i32 %quit, 0
  %awake = or i1 %work, %stop
  br i1 %awake, label %stay, label %wait
stay:
  %after = atomicrmw sub ptr @sleepers, i32 1 seq_cst, align 4
  br label %exit
wait:
  $wait
  br label %exit
exit:
  $mutex_unlock
  ret void
}

define internal i1 @claim(i64 %word) {
  %less = sub i64 %word, 1
  %pair = cmpxchg ptr @word, i64 %word, i64 %less acq_rel monotonic, align 8
  %won = extractvalue { i64, i1 } %pair, 1
  ret i1 %won
}

define internal $worker_type @gnn_worker(ptr %unused) {
entry:
  br label %loop
loop:
  %limit = load atomic i64, ptr @spin monotonic, align 8
  %before = load atomic i64, ptr @word monotonic, align 8
  %word = call i64 @gnn_pool_spin(i64 %limit)
  %quit = load atomic i32, ptr @quit acquire, align 4
  %stop = icmp ne i32 %quit, 0
  br i1 %stop, label %exit, label %look
look:
  %open = and i64 %word, 4294967295
  %work = icmp ne i64 %open, 0
  br i1 %work, label %read, label %idle
idle:
  ; Regions that came and went unseen still say that the program is busy.
  %after = load atomic i64, ptr @word monotonic, align 8
  %calm = icmp eq i64 %before, %after
  br i1 %calm, label %rest, label %loop
rest:
  call void @sleep()
  br label %loop
read:
  %kernel = load atomic ptr, ptr @job.kernel monotonic, align 8
  %buffers = load atomic ptr, ptr @job.buffers monotonic, align 8
  %sizes = load atomic ptr, ptr @job.sizes monotonic, align 8
  %quotient = load atomic i64, ptr @job.quotient monotonic, align 8
  %remainder = load atomic i64, ptr @job.rest monotonic, align 8
  %grain = load atomic i64, ptr @job.grain monotonic, align 8
  %total = load atomic i64, ptr @job.total monotonic, align 8
  %parts = load atomic i64, ptr @job.parts monotonic, align 8
  %won = call i1 @claim(i64 %word)
  br i1 %won, label %run, label %loop
run:
  %part = sub i64 %parts, %open
  call void @run_part(ptr %kernel, ptr %buffers, ptr %sizes, i64 %quotient, i64 %remainder,
    i64 %grain, i64 %total, i64 %part)
  %left = atomicrmw sub ptr @pending, i64 1 release, align 8
  br label %loop
exit:
  ret $worker_result
}

define internal void @start_workers(i32 %wanted) noinline {
entry:
  $before_create
  %first = load i32, ptr @started, align 4
  br label %loop
loop:
  %number = phi i32 [ %first, %entry ], [ %next, %created ]
  %more = icmp slt i32 %number, %wanted
  br i1 %more, label %make, label %exit
make:
  %index = sext i32 %number to i64
  %slot = getelementptr i64, ptr @threads.running, i64 %index
  $create
  br i1 %bad, label %refused, label %created
created:
  %next = add i32 %number, 1
  br label %loop
refused:
  ; The system gives no more threads: be content with those that there are.
  %total = add i32 %number, 1
  store atomic i32 %total, ptr @threads monotonic, align 4
  br label %exit
exit:
  store i32 %number, ptr @started, align 4
  $after_create
  ret void
}

; Whoever wakes a sleeper takes it off the count, so that the next region need not wake it again.
define internal void @wake(i64 %parts) noinline {
entry:
  %wakes = atomicrmw add ptr @wakes, i64 1 monotonic, align 8
  %helpers = sub i64 %parts, 1
  $mutex_lock
  %sleeping = load atomic i32, ptr @sleepers seq_cst, align 4
  %asleep = sext i32 %sleeping to i64
  %few = icmp slt i64 %helpers, %asleep
  br i1 %few, label %loop, label %all
all:
  store atomic i32 0, ptr @sleepers seq_cst, align 4
  $broadcast
  br label %exit
loop:
  %count = phi i64 [ 0, %entry ], [ %next, %loop ]
  %after = atomicrmw sub ptr @sleepers, i32 1 seq_cst, align 4
  $signal
  %next = add i64 %count, 1
  %more = icmp slt i64 %next, %helpers
  br i1 %more, label %loop, label %exit
exit:
  $mutex_unlock
  ret void
}
"""

_PARALLEL = """
define void @gnn_parallel(ptr %kernel, ptr %buffers, ptr %sizes, i64 %total, i64 %asked.grain,
    i64 %asked.parts) {
entry:
  %any = icmp sgt i64 %total, 0
  br i1 %any, label %divide, label %exit
divide:
  %grain = call i64 @llvm.smax.i64(i64 %asked.grain, i64 1)
  %less = sub i64 %total, 1
  %full = udiv i64 %less, %grain
  %chunks = add i64 %full, 1
  %at.least = call i64 @llvm.smax.i64(i64 %asked.parts, i64 1)
  %at.most = call i64 @llvm.smin.i64(i64 %at.least, i64 %chunks)
  %parts = call i64 @llvm.smin.i64(i64 %at.most, i64 2147483647)
  %quotient = udiv i64 %chunks, %parts
  %rest = urem i64 %chunks, %parts
  %threads = load atomic i32, ptr @threads monotonic, align 4
  %many.threads = icmp sgt i32 %threads, 1
  %many.parts = icmp sgt i64 %parts, 1
  %parallel = and i1 %many.threads, %many.parts
  br i1 %parallel, label %try, label %serial
try:
  ; The pool is taken by another thread, or by the region that this call is nested in.
  %pair = cmpxchg ptr @lock, i32 0, i32 1 acquire monotonic, align 4
  %locked = extractvalue { i32, i1 } %pair, 1
  br i1 %locked, label %check, label %serial
serial:
  call void @run_serially(ptr %kernel, ptr %buffers, ptr %sizes, i64 %quotient, i64 %rest,
    i64 %grain, i64 %total, i64 %parts)
  br label %exit
check:
  %wanted = sub i32 %threads, 1
  %running = load i32, ptr @started, align 4
  %missing = icmp slt i32 %running, %wanted
  br i1 %missing, label %start, label %publish
start:
  call void @start_workers(i32 %wanted)
  br label %publish
publish:
  store atomic ptr %kernel, ptr @job.kernel monotonic, align 8
  store atomic ptr %buffers, ptr @job.buffers monotonic, align 8
  store atomic ptr %sizes, ptr @job.sizes monotonic, align 8
  store atomic i64 %quotient, ptr @job.quotient monotonic, align 8
  store atomic i64 %rest, ptr @job.rest monotonic, align 8
  store atomic i64 %grain, ptr @job.grain monotonic, align 8
  store atomic i64 %total, ptr @job.total monotonic, align 8
  store atomic i64 %parts, ptr @job.parts monotonic, align 8
  %others = sub i64 %parts, 1
  store atomic i64 %others, ptr @pending monotonic, align 8
  %count = load i64, ptr @regions, align 8
  %counted = add i64 %count, 1
  store i64 %counted, ptr @regions, align 8
  %old = load atomic i64, ptr @word monotonic, align 8
  %generation = add i64 %old, 4294967296
  %new = or i64 %generation, %others
  %swapped = atomicrmw xchg ptr @word, i64 %new seq_cst, align 8
  %sleeping = load atomic i32, ptr @sleepers seq_cst, align 4
  %idle = icmp sgt i32 %sleeping, 0
  br i1 %idle, label %rouse, label %own
rouse:
  call void @wake(i64 %parts)
  br label %own
own:
  call void @run_part(ptr %kernel, ptr %buffers, ptr %sizes, i64 %quotient, i64 %rest,
    i64 %grain, i64 %total, i64 0)
  br label %help
help:
  %word = load atomic i64, ptr @word monotonic, align 8
  %open = and i64 %word, 4294967295
  %work = icmp ne i64 %open, 0
  br i1 %work, label %take, label %wait
take:
  %won = call i1 @claim(i64 %word)
  br i1 %won, label %run, label %help
run:
  %part = sub i64 %parts, %open
  call void @run_part(ptr %kernel, ptr %buffers, ptr %sizes, i64 %quotient, i64 %rest,
    i64 %grain, i64 %total, i64 %part)
  %one.less = atomicrmw sub ptr @pending, i64 1 monotonic, align 8
  br label %help
wait:
  %spins = phi i64 [ 0, %help ], [ %more.spins, %pause ], [ 0, %yield ]
  %left = load atomic i64, ptr @pending acquire, align 8
  %done = icmp eq i64 %left, 0
  br i1 %done, label %unlock, label %patience
patience:
  %long = icmp sgt i64 %spins, 4096
  br i1 %long, label %yield, label %pause
pause:
  $pause
  %more.spins = add i64 %spins, 1
  br label %wait
yield:
  $yield
  br label %wait
unlock:
  store atomic i32 0, ptr @lock release, align 4
  br label %exit
exit:
  ret void
}
"""

_STOP = """
define i32 @gnn_pool_stop(i32 %keep, i64 %tries) {
entry:
  br label %try
try:
  %count = phi i64 [ 0, %entry ], [ %next, %again ]
  %pair = cmpxchg ptr @lock, i32 0, i32 1 acquire monotonic, align 4
  %locked = extractvalue { i32, i1 } %pair, 1
  br i1 %locked, label %stop, label %again
again:
  $yield
  %next = add i64 %count, 1
  %more = icmp slt i64 %next, %tries
  br i1 %more, label %try, label %failed
failed:
  ret i32 0
stop:
  store atomic i32 1, ptr @quit seq_cst, align 4
  $mutex_lock
  store atomic i32 0, ptr @sleepers seq_cst, align 4
  $broadcast
  $mutex_unlock
  %running = load i32, ptr @started, align 4
  br label %loop
loop:
  %number = phi i32 [ 0, %stop ], [ %following, %join ]
  %another = icmp slt i32 %number, %running
  br i1 %another, label %join, label %joined
join:
  %index = sext i32 %number to i64
  %slot = getelementptr i64, ptr @threads.running, i64 %index
  %thread = load i64, ptr %slot, align 8
  $join
  %following = add i32 %number, 1
  br label %loop
joined:
  store i32 0, ptr @started, align 4
  store atomic i32 0, ptr @quit seq_cst, align 4
  %held = icmp ne i32 %keep, 0
  br i1 %held, label %stopped, label %unlock
unlock:
  store atomic i32 0, ptr @lock release, align 4
  br label %stopped
stopped:
  ret i32 1
}
"""
