// How programs that this process executes (execve) get into a cell, and what they inherit for it.
//
// The decisions of `xos run` travel in the environment: in LD_PRELOAD and in variables that begin
// with XOS_. A program in a cell does not see them: they are removed from its environment when it
// starts, kept here, and given to the next program when it executes one.
#pragma once

#include <cstddef>
#include <cstdint>

namespace xos::program {

enum class follow : std::uint8_t { all, none };
enum class loading : std::uint8_t { automatic, own, preload };

struct policy {
    enum class problem : std::uint8_t { none, follow, loader, fallback, size };
    static constexpr unsigned most_variables = 64, text_size = 16384;

    /// False in an application that is linked to libxos: its execs are left alone.
    bool governs = false;
    follow successors = follow::all;
    loading way = loading::automatic;
    bool successors_fall_back = true;
    bool falls_back = false;           ///< goes on outside if there can be no cell
    const char* library = "";          ///< libxos-preload.so
    const char* also = "";             ///< another library that `xos run` preloads: a malloc
    const char* loader = "";           ///< xos-loader
    const char* kept[most_variables];  ///< "XOS_...=..."
    unsigned kept_count = 0;
    unsigned used = 0;
    char text[text_size];  ///< copies: programs overwrite the stack that held their environment

    problem read(char** environment);

    /// Removes the variables from `environment`, in place. Returns how many there were.
    std::size_t hide(char** environment) const;

    /// Returns `value` of LD_PRELOAD without the libraries that libxos has put in front.
    const char* without_own(const char* value) const;

    /// Writes the value of LD_PRELOAD for the next program, the application's own libraries last.
    /// Returns 0 if `size` bytes are too few. `to` becomes empty when there is nothing to preload.
    std::size_t join(char* to, std::size_t size, bool with_library, const char* others) const;
};

/// Whether libxos keeps this environment string to itself.
bool is_reserved(const char* variable);

inline constexpr char preload_variable[] = "LD_PRELOAD=";

/// Makes the number of hidden variables even: see close_gap().
inline constexpr char padding_variable[] = "XOS_PADDING=";

/// Fills the gap that hide() leaves between the initial environment and the auxiliary vector behind
/// it: programs without a C library, such as Go's, look for the vector right after the null
/// pointer. The gap of `hidden` pointers becomes vector entries that mean nothing (AT_IGNORE); if
/// `hidden` is odd, one pointer becomes a copy of the last variable.
void close_gap(char** environment, std::size_t hidden);

}  // namespace xos::program
