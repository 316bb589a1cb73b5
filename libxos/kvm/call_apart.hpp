// A system call made by a process that shares this one's memory (arch/entry_host.S).
#pragma once

/// Has a new process make the call and end at once; it shares with this one what clone's `flags`
/// say, memory included. Returns its id, or clone's error; `result` receives the call's result. All
/// signals must be blocked. Waits only with CLONE_VFORK.
extern "C" [[gnu::visibility("hidden")]] long xos_call_apart(long number, long a, long b, long c,
                                                             long flags, long* result);
