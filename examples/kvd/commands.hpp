// The commands: one request in, one reply out.
#pragma once

#include "resp.hpp"
#include "service.hpp"

namespace kvd {

/// What becomes of the connection once the reply is sent.
enum class aftermath { keep, close };

/// Carries out `arguments` (never empty) at the time `now`.
aftermath execute(argument_list arguments, service& host, time_point now, reply_writer& reply);

/// The text of INFO; `section` in lower case, or empty for all of them.
std::string info_text(const service& host, std::string_view section);

}  // namespace kvd
