// How forwarded system calls reach Linux.
#pragma once

#include <xos/language.hpp>

#if __cplusplus >= 202002L

namespace xos {

/// How forwarded calls reach Linux. The answers are the same, only the cost differs
/// (docs/module.md).
enum class transport : unsigned {
    automatic,  ///< `module` if /dev/xos can be used, else `exit`
    exit,       ///< every call leaves the guest, and the thread makes it in user space
    module,     ///< by the kernel module, inside KVM_RUN; other calls take an exit
};

/// The name used on command lines and in reports: "auto", "exit", "module". Call anywhere.
[[nodiscard]] const char* name(transport t) noexcept;

}  // namespace xos

#endif  // C++20
