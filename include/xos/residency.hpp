// How anonymous memory of the process becomes resident.
#pragma once

#include <xos/language.hpp>

#if __cplusplus >= 202002L

namespace xos {

/// When Linux puts page frames behind anonymous memory that libxos serves
/// (`cell_options::process_pager`, `xos run --pager`). The guest's own translations are always
/// there when a mapping is.
enum class residency : unsigned {
    system,    ///< at the first touch, by transparent huge pages if the machine's setting is
               ///< "always"
    huge,      ///< at the first touch, by transparent huge pages if the setting is not "never"
    demand,    ///< at the first touch, 4 KiB at a time
    populate,  ///< before it is handed out, 64 MiB at a time
    window,    ///< before it is handed out, `process_window` pages of 4 KiB at a time
};

}  // namespace xos

#endif  // C++20
