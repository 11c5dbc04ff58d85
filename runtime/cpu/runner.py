"""The native entry: one call runs all steps of a program, whatever the program is.

The functions are the same for every program, so they are compiled once per machine; a program is
the table of 64-bit words that they read. Layout of the table (indices in words):

    program: [number of links, links, number of steps, steps, slots]
    link:    [address of a kernel's buffer entry, slot number]
    step:    [kernel, start, finish, buffers, sizes, rows, grain, parts, host call, number]

A kernel with several segments gets `gnn_segments` as its function and a descriptor as its buffers:

    [kernel, number of segments, then per segment: first row, end row, buffers]

Steps that only write Variables run under `gnn_updates`, which is the same with denormal numbers
(below 1.2e-38 in float32) flushed to zero, on x86: in the slots of an optimizer they carry nothing
and make its update two to three times slower.
"""

from __future__ import annotations

import ctypes
import platform
from functools import cache

from graphnn.runtime.cpu import jit, pool

STEP_WORDS = 10

SEGMENTS = """
define void @NAME(ptr %buffers, ptr %sizes, i64 %begin, i64 %end, i64 %part) nounwind {
entry:
ENTER  %kernel = load ptr, ptr %buffers
  %count.p = getelementptr i64, ptr %buffers, i64 1
  %count = load i64, ptr %count.p
  br label %head
head:
  %k = phi i64 [ 0, %entry ], [ %k.next, %next ]
  %more = icmp slt i64 %k, %count
  br i1 %more, label %body, label %exit
body:
  %three = mul i64 %k, 3
  %first.at = add i64 %three, 2
  %first.p = getelementptr i64, ptr %buffers, i64 %first.at
  %first = load i64, ptr %first.p
  %last.p = getelementptr i64, ptr %first.p, i64 1
  %last = load i64, ptr %last.p
  %own.p = getelementptr i64, ptr %first.p, i64 2
  %own = load ptr, ptr %own.p
  %low.in = icmp slt i64 %begin, %first
  %low = select i1 %low.in, i64 %first, i64 %begin
  %high.in = icmp slt i64 %end, %last
  %high = select i1 %high.in, i64 %end, i64 %last
  %some = icmp slt i64 %low, %high
  br i1 %some, label %run, label %next
run:
  %from = sub i64 %low, %first
  %to = sub i64 %high, %first
  call void %kernel(ptr %own, ptr %sizes, i64 %from, i64 %to, i64 %part)
  br label %next
next:
  %k.next = add i64 %k, 1
  br label %head
exit:
LEAVE  ret void
}
"""

# Flush to zero and denormals are zero, in the control word of SSE.
FLUSH = """  %csr = alloca i32
  call void @llvm.x86.sse.stmxcsr(ptr %csr)
  %csr.old = load i32, ptr %csr
  %csr.new = or i32 %csr.old, 32832
  store i32 %csr.new, ptr %csr
  call void @llvm.x86.sse.ldmxcsr(ptr %csr)
"""
RESTORE = """  store i32 %csr.old, ptr %csr
  call void @llvm.x86.sse.ldmxcsr(ptr %csr)
"""

RUNNER = """
declare void @gnn_parallel(ptr, ptr, ptr, i64, i64, i64)

define i64 @gnn_run(ptr %program) nounwind {
entry:
  %links = load i64, ptr %program
  %link.pp = getelementptr i64, ptr %program, i64 1
  %link.base = load ptr, ptr %link.pp
  %steps.p = getelementptr i64, ptr %program, i64 2
  %steps = load i64, ptr %steps.p
  %step.pp = getelementptr i64, ptr %program, i64 3
  %step.base = load ptr, ptr %step.pp
  %slots.p = getelementptr i64, ptr %program, i64 4
  %slots = load ptr, ptr %slots.p
  br label %link.head
link.head:
  %l = phi i64 [ 0, %entry ], [ %l.next, %link.body ]
  %l.more = icmp slt i64 %l, %links
  br i1 %l.more, label %link.body, label %step.head
link.body:
  %l.two = mul i64 %l, 2
  %target.p = getelementptr i64, ptr %link.base, i64 %l.two
  %target = load ptr, ptr %target.p
  %number.p = getelementptr i64, ptr %target.p, i64 1
  %number = load i64, ptr %number.p
  %slot.p = getelementptr i64, ptr %slots, i64 %number
  %slot = load i64, ptr %slot.p
  store i64 %slot, ptr %target
  %l.next = add i64 %l, 1
  br label %link.head
step.head:
  %s = phi i64 [ 0, %link.head ], [ %s.next, %step.done ]
  %s.more = icmp slt i64 %s, %steps
  br i1 %s.more, label %step.body, label %good
step.body:
  %at = mul i64 %s, 10
  %r0 = getelementptr i64, ptr %step.base, i64 %at
  %r1 = getelementptr i64, ptr %r0, i64 1
  %r2 = getelementptr i64, ptr %r0, i64 2
  %r3 = getelementptr i64, ptr %r0, i64 3
  %r4 = getelementptr i64, ptr %r0, i64 4
  %r5 = getelementptr i64, ptr %r0, i64 5
  %r6 = getelementptr i64, ptr %r0, i64 6
  %r7 = getelementptr i64, ptr %r0, i64 7
  %r8 = getelementptr i64, ptr %r0, i64 8
  %kernel = load ptr, ptr %r0
  %start = load ptr, ptr %r1
  %finish = load ptr, ptr %r2
  %buffers = load ptr, ptr %r3
  %sizes = load ptr, ptr %r4
  %rows = load i64, ptr %r5
  %grain = load i64, ptr %r6
  %parts = load i64, ptr %r7
  %host = load ptr, ptr %r8
  %is.host = icmp ne ptr %host, null
  br i1 %is.host, label %call.host, label %native
call.host:
  %failed = call i64 %host(i64 %s)
  %host.bad = icmp ne i64 %failed, 0
  br i1 %host.bad, label %bad, label %step.done
native:
  %has.start = icmp ne ptr %start, null
  br i1 %has.start, label %do.start, label %main
do.start:
  call void %start(ptr %buffers, ptr %sizes, i64 0, i64 %rows, i64 0)
  br label %main
main:
  %nothing = icmp slt i64 %rows, 1
  br i1 %nothing, label %after, label %work
work:
  %alone = icmp slt i64 %parts, 2
  br i1 %alone, label %one, label %many
one:
  call void %kernel(ptr %buffers, ptr %sizes, i64 0, i64 %rows, i64 0)
  br label %after
many:
  call void @gnn_parallel(ptr %kernel, ptr %buffers, ptr %sizes, i64 %rows, i64 %grain, i64 %parts)
  br label %after
after:
  %has.finish = icmp ne ptr %finish, null
  br i1 %has.finish, label %do.finish, label %check
do.finish:
  call void %finish(ptr %buffers, ptr %sizes, i64 0, i64 %rows, i64 %parts)
  br label %check
check:
  %code = load i64, ptr %sizes
  %check.bad = icmp ne i64 %code, 0
  br i1 %check.bad, label %bad, label %step.done
step.done:
  %s.next = add i64 %s, 1
  br label %step.head
bad:
  %s.one = add i64 %s, 1
  ret i64 %s.one
good:
  ret i64 0
}
"""


@cache
def library() -> jit.Library:
    """The compiled runner."""
    symbols = {"gnn_parallel": pool.parallel_address()}
    return jit.compile_library([("runner", text())], symbols)


def text() -> str:
    """The module of the runner for this machine."""
    on_x86 = platform.machine().lower() in ("x86_64", "amd64")
    enter, leave = (FLUSH, RESTORE) if on_x86 else ("", "")
    plain = SEGMENTS.replace("ENTER", "").replace("LEAVE", "")
    updates = SEGMENTS.replace("ENTER", enter).replace("LEAVE", leave)
    functions = plain.replace("@NAME", "@gnn_segments") + updates.replace("@NAME", "@gnn_updates")
    return RUNNER + functions


@cache
def segments_address(updates: bool = False) -> int:
    """Address of `gnn_segments`, or of `gnn_updates`."""
    return library().address("gnn_updates" if updates else "gnn_segments")


@cache
def run_function() -> ctypes._FuncPointer:
    """`gnn_run` as a ctypes function of one address; it gives 0, or the failed step plus one."""
    return ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(library().address("gnn_run"))
