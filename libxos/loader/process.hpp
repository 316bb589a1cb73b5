// What a program finds when it starts, and what other processes see of it.
#pragma once

#include <elf.h>

#include <cstdint>

#include "libxos/loader/image.hpp"

namespace xos::loader {

/// The vectors that Linux left on the stack: argc, argv, envp, auxv. They are contiguous.
struct start_vectors {
    std::uint64_t* base;  ///< where argc is
    std::uint64_t argument_count;
    char** arguments;
    char** environment;
    Elf64_auxv_t* auxiliary;

    explicit start_vectors(std::uint64_t* stack);
    Elf64_auxv_t* find(std::uint64_t type) const;
    std::uint64_t value(std::uint64_t type) const;
};

struct program_start {
    const image& program;
    const image* linker;     ///< null: statically linked
    const char* name;        ///< AT_EXECFN: the name that execve was given
    unsigned own_arguments;  ///< how many arguments to drop from the front
};

/// Turns the vectors into the program's, in place: they only become shorter, so that no room below
/// them is needed.
start_vectors pass_on(const start_vectors& own, const program_start& start);

/// Sets /proc/self/cmdline, environ, auxv, comm, exe, and the start of the heap, as far as Linux
/// lets this process do so. `file` is the program's. False: /proc/self/exe is still the loader.
bool tell_linux(const start_vectors& started, const image& main, int file, const char* name);

void make_stack_executable(std::uint64_t stack);

}  // namespace xos::loader
