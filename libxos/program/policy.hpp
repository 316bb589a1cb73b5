// How this process's successors (execve) get into a cell, and what they inherit for that.
//
// What `xos run` decided travels in the environment: the variables that begin with XOS_, and
// LD_PRELOAD. A program in a cell does not see them: they are taken out of its environment when it
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

    /// False in an application that is linked to libxos: exec is nobody's business but its own.
    bool governs = false;
    follow successors = follow::all;
    loading way = loading::automatic;
    bool successors_fall_back = true;
    bool falls_back = false;           ///< to go on outside, if there can be no cell
    const char* library = "";          ///< libxos-preload.so
    const char* also = "";             ///< what `xos run` preloads besides: a malloc
    const char* loader = "";           ///< xos-loader
    const char* kept[most_variables];  ///< "XOS_...=..."
    unsigned kept_count = 0;
    unsigned used = 0;
    char text[text_size];  ///< copies: programs overwrite the stack that their environment came on

    problem read(char** environment);

    /// Takes the variables out of `environment`, in place. How many those were.
    std::size_t hide(char** environment) const;

    /// `value` of LD_PRELOAD without the libraries that libxos has put in front.
    const char* without_own(const char* value) const;

    /// LD_PRELOAD for a successor, without the name, with what is the application's own behind it.
    /// Zero: `size` bytes are too few. `to` becomes empty when there is nothing to preload.
    std::size_t join(char* to, std::size_t size, bool with_library, const char* others) const;
};

/// Whether an environment's string is one that libxos keeps to itself.
bool is_reserved(const char* variable);

inline constexpr char preload_variable[] = "LD_PRELOAD=";

/// Makes the number of variables that will be hidden even: see close_gap().
inline constexpr char padding_variable[] = "XOS_PADDING=";

/// The environment that a process began with lies in front of its auxiliary vector, and programs
/// without a C library, such as Go's, look for the vector behind the null pointer. Makes pairs of
/// that vector, which mean nothing, of what `hidden` pointers have left between the two. Of an odd
/// number one becomes a variable that is there already.
void close_gap(char** environment, std::size_t hidden);

}  // namespace xos::program
