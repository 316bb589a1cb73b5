// Decides how a program is started: by preloading, by the loader, or without a cell. `xos run`,
// execve in a cell and other callers carry the decision out.
#pragma once

#include <cstddef>
#include <cstdint>

#include "libxos/program/policy.hpp"
#include "libxos/program/program_file.hpp"

namespace xos::program {

enum class way : std::uint8_t {
    natively,  ///< starts exactly what was asked for; Linux decides the rest
    outside,   ///< the same for a program that Linux can run; `why` says why no cell
    preload,   ///< starts what was asked for, with libxos-preload.so in LD_PRELOAD
    own,       ///< the loader, with the program as its argument
};

/// What prevents the start that the policy asks for.
enum class obstacle : std::uint8_t {
    none,
    program,         ///< Linux can run it, a cell cannot
    tracer,          ///< a process in a cell traces it
    device,          ///< /dev/kvm may not be opened
    unreadable,      ///< the loader could not read it
    needs_loader,    ///< it cannot be preloaded, and the policy forbids the loader
    loader_missing,  ///< the loader is missing or may not be executed
};

/// Facts that only the caller knows.
struct surroundings {
    bool traced_from_a_cell = false;
    bool must_have_kvm = false;   ///< starts the program outside if it may not open /dev/kvm
    bool is_own_program = false;  ///< its name leads to the loader (/proc/self/exe)
};

struct launch_plan {
    way how = way::natively;
    obstacle hindered_by = obstacle::none;
    const char* why = "";       ///< continues a sentence that begins with the program's name
    const char* executed = "";  ///< the file to execute; empty: the one that was asked for

    /// Whether the program gets the policy's variables and the LD_PRELOAD that policy::join()
    /// makes; otherwise its environment is left alone.
    bool in_cell() const { return how == way::preload || how == way::own; }
    bool with_library() const { return how == way::preload; }
};

/// Plans for this process, whose root directory and rights may have changed since it started.
launch_plan plan_launch(const program_file& file, const policy& wanted, const surroundings& here);

/// What the caller asks to start, in the terms of execveat(2).
struct start_request {
    int directory;
    const char* path;

    bool is_unnamed() const { return !*path; }
    /// Whether the path alone identifies the file.
    bool is_by_path() const;
};

/// The loader's own arguments, which precede all of the program's (loader_host.cpp).
struct loader_words {
    static constexpr unsigned most = 5;
    static constexpr std::size_t text_size = program_file::path_size + 128;

    const char* list[most];
    unsigned count = 0;

    /// @param descriptor  the open file, which the loader closes; -1: it opens the file by name
    /// @param text  room for `text_size` bytes
    /// @return the end of the used part of `text`
    char* make(const start_request& asked, int descriptor, char* text);
};

}  // namespace xos::program
