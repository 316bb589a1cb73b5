// An ELF file in memory, as Linux's fs/binfmt_elf.c puts it there.
#pragma once

#include <cstdint>

namespace xos::loader {

struct image {
    std::uint64_t bias = 0;
    std::uint64_t entry = 0;
    std::uint64_t headers = 0;  ///< of the program headers, in memory
    std::uint64_t header_count = 0;
    std::uint64_t begin = 0;
    std::uint64_t end = 0;  ///< of the last segment, with what the file does not hold
    std::uint64_t code_begin = 0, code_end = 0, data_begin = 0, data_end = 0;
    bool executable_stack = false;
    bool among_libraries = false;
};

/// Where a file lies that demands no address: a program with a dynamic linker has a region of its
/// own, any other file lies among the shared libraries.
enum class placement { program, library };

/// Null, or what is wrong; `error` is Linux's.
const char* map_image(image& made, int fd, placement where, long& error);

/// A random number of pages, less than 2^bits; zero where the process wants no randomness.
std::uint64_t random_pages(unsigned bits);

}  // namespace xos::loader
