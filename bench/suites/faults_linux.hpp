// Faults as Linux hands them to a program: by SIGSEGV, or by userfaultfd(2) without a second
// thread, for which the thread that faults gets SIGBUS (UFFD_FEATURE_SIGBUS) and its handler asks
// for the page.
#pragma once

#include <csignal>
#include <cstdint>

namespace xos::bench {

/// Returns what was there before. @throws std::system_error
struct sigaction catch_signal(int number, void (*action)(int, siginfo_t*, void*));

/// Whether this kernel has userfaultfd's missing pages, or its write protection of anonymous ones.
bool has_missing_faults();
bool has_write_faults();

// One range a process, which keeps it until it ends. @throws std::system_error

/// A missing page gets a zeroed frame when it is touched.
void fill_when_touched(std::uint64_t begin, std::uint64_t bytes);
/// A page that is protected becomes writable when it is written to.
void unprotect_when_written(std::uint64_t begin, std::uint64_t bytes);
void write_protect(std::uint64_t begin, std::uint64_t bytes);

}  // namespace xos::bench
