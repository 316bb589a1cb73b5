// Finds out what exec(2) would make of a file, without executing it.
//
// The answer is never an error number. Where Linux would refuse the file, or might know a format
// that libxos does not (binfmt_misc), the answer is that Linux decides, and the caller passes the
// exec on to it.
#pragma once

#include <cstdint>

namespace xos::program {

enum class program_kind : std::uint8_t {
    linux_decides,
    outside,      ///< Linux can run it, a cell cannot
    unreadable,   ///< executable, but not readable: its kind is unknown
    preloadable,  ///< its dynamic linker is glibc's
    loadable,     ///< statically linked, or with another dynamic linker
};

/// One line "#! interpreter argument", split as Linux does it (fs/binfmt_script.c).
struct script_line {
    static constexpr unsigned size = 256;  ///< BINPRM_BUF_SIZE
    char text[size];
    const char* interpreter = nullptr;
    const char* argument = nullptr;  ///< null: there is none

    /// False: Linux would answer ENOEXEC. `text` holds the beginning of the file, zeros after its
    /// end.
    bool parse();
};

struct program_file {
    static constexpr unsigned most_scripts = 5, path_size = 4096;

    program_kind what = program_kind::linux_decides;
    const char* why = "";  ///< continues a sentence that begins with the program's name
    int fd = -1;           ///< the ELF file, open for reading; -1 unless preloadable or loadable
    unsigned scripts = 0;
    script_line lines[most_scripts];  ///< the script that was asked for comes first
    char linker[path_size];           ///< PT_INTERP; empty: there is none

    program_file() { linker[0] = '\0'; }
    ~program_file() { close(); }
    program_file(const program_file&) = delete;
    program_file& operator=(const program_file&) = delete;
    void close();
};

/// `flags` as of execveat(2). Opens and reads files, nothing else.
void inspect(program_file& found, int directory, const char* path, int flags);

}  // namespace xos::program
