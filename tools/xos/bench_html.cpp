// The report as one page.
#include <stdexcept>
#include <string_view>

#include "tools/xos/bench_results.hpp"

// The page with the charting library in it, and a place for the results; made by the build.
asm(".pushsection .rodata\n"
    "xos_report_begin: .incbin \"" XOS_REPORT_PAGE
    "\"\n"
    "xos_report_end:\n"
    ".popsection");
extern "C" const char xos_report_begin[], xos_report_end[];

namespace xos::tool {

std::string html(const results& r) {
    constexpr std::string_view place = "{\"place\":\"results\"}";
    std::string page(xos_report_begin, xos_report_end);
    const auto at = page.find(place);
    if (at == std::string::npos) throw std::logic_error("the report has no place for the results");
    // Nothing in the text may end the element that it is in.
    std::string text;
    for (const char c : to_text(r)) {
        if (c == '<') {
            text += "\\u003c";
        } else {
            text += c;
        }
    }
    return page.replace(at, place.size(), text);
}

}  // namespace xos::tool
