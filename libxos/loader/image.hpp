// An ELF file in memory, as Linux's fs/binfmt_elf.c puts it there.
#pragma once

#include <cstdint>

namespace xos::loader {

struct image {
    std::uint64_t bias = 0;
    std::uint64_t entry = 0;
    std::uint64_t headers = 0;  ///< the address of the program headers in memory
    std::uint64_t header_count = 0;
    std::uint64_t begin = 0;
    std::uint64_t end = 0;  ///< end of the last segment, with the part that the file lacks
    std::uint64_t code_begin = 0, code_end = 0, data_begin = 0, data_end = 0;
    bool executable_stack = false;
    bool among_libraries = false;
};

/// Where a file without a fixed address goes: a program with a dynamic linker has a region of its
/// own; any other file goes among the shared libraries.
enum class placement { program, library };

/// Returns null, or a text that says what is wrong; `error` is Linux's.
const char* map_image(image& made, int fd, placement where, long& error);

/// Returns a random number of pages below 2^bits; zero if the process wants no randomness.
std::uint64_t random_pages(unsigned bits);

}  // namespace xos::loader
