// Where application and kernel-side code run inside the guest.
#pragma once

#include <xos/language.hpp>

#if __cplusplus >= 202002L

namespace xos {

/// At which privilege level code runs inside (docs/modes.md).
enum class mode : unsigned {
    automatic,  ///< measure ring 0 at start-up and take `ring0` or `pvm`
    ring0,      ///< application at CPL 0: hardware VMX or SVM only
    ring3,      ///< application at CPL 3, page tables out of its reach: hardware VMX or SVM only
    pvm,        ///< everything at CPL 3: for a software KVM that interprets ring 0
};

/// The name used on command lines and in reports: "auto", "ring0", "ring3", "pvm". Call anywhere.
[[nodiscard]] const char* name(mode m) noexcept;

}  // namespace xos

#endif  // C++20
