// How a program is started: by preloading, by the loader, or without a cell. Decided here for
// `xos run`, for execve in a cell, and for whatever else starts programs; carried out by them.
#pragma once

#include <cstddef>
#include <cstdint>

#include "libxos/program/policy.hpp"
#include "libxos/program/program_file.hpp"

namespace xos::program {

enum class way : std::uint8_t {
    natively,  ///< exactly what was asked for: what becomes of it is Linux's decision
    outside,   ///< the same, of a program that Linux can run: the plan says why in no cell
    preload,   ///< what was asked for, with libxos-preload.so in LD_PRELOAD
    own,       ///< the loader, with the program as its argument
};

/// What keeps a program from being started as the policy wants it.
enum class obstacle : std::uint8_t {
    none,
    program,         ///< Linux can run it, a cell cannot
    tracer,          ///< a process in a cell traces it
    device,          ///< /dev/kvm may not be opened
    unreadable,      ///< the loader could not read it
    needs_loader,    ///< it cannot be preloaded into, and the policy allows nothing else
    loader_missing,  ///< or may not be executed
};

/// What only the caller knows.
struct surroundings {
    bool traced_from_a_cell = false;
    bool must_have_kvm = false;   ///< to go on without a cell is better than to fail for /dev/kvm
    bool is_own_program = false;  ///< asked for by a name that leads to the loader (/proc/self/exe)
};

struct launch_plan {
    way how = way::natively;
    obstacle hindered_by = obstacle::none;
    const char* why = "";       ///< continues a sentence that begins with the program's name
    const char* executed = "";  ///< instead of what was asked for; empty: that itself

    /// Whether the environment gets the policy's variables, and LD_PRELOAD as policy::join() makes
    /// it; else it stays what it is.
    bool in_cell() const { return how == way::preload || how == way::own; }
    bool with_library() const { return how == way::preload; }
};

/// As this process, which may have another root directory and other rights than when it started.
launch_plan plan_launch(const program_file& file, const policy& wanted, const surroundings& here);

/// What is asked for, as of execveat(2).
struct start_request {
    int directory;
    const char* path;

    bool is_unnamed() const { return !*path; }
    /// Whether the path alone says which file that is.
    bool is_by_path() const;
};

/// The loader's own arguments, which go in front of all of the program's (loader_host.cpp).
struct loader_words {
    static constexpr unsigned most = 5;
    static constexpr std::size_t text_size = program_file::path_size + 128;

    const char* list[most];
    unsigned count = 0;

    /// @param descriptor  of the file, for the loader to close; -1: it opens the file by its name
    /// @param text  room for `text_size` bytes
    /// @return the end of what is used of it
    char* make(const start_request& asked, int descriptor, char* text);
};

}  // namespace xos::program
