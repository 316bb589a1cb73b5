// A system call made by a process that shares this one's memory (arch/entry_host.S).
#pragma once

/// By a process that has what clone's `flags` say of this one, memory included, and ends at once.
/// Returns its id, or clone's error; `result` is the call's when it has one. All signals must be
/// blocked. Without CLONE_VFORK it does not wait.
extern "C" [[gnu::visibility("hidden")]] long xos_call_apart(long number, long a, long b, long c,
                                                             long flags, long* result);
