// The `xos` command.
#include <cstdio>
#include <exception>

#include "tools/xos/commands.hpp"

int main(int argc, char** argv) {
    using namespace xos::tool;
    CLI::App app(
        "Runs programs on virtual CPUs of their own, and tells what this machine offers for it.",
        "xos");
    app.set_version_flag("--version", "xos " XOS_VERSION);
    app.require_subcommand(1);
    command_result result;
    add_doctor(app, result);
    add_run(app, result, argc, argv);
    add_bench(app, result);
    add_syscalls(app, result);
    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& e) {
        return app.exit(e) == 0 ? status_ok : status_usage;
    } catch (const std::exception& e) {
        std::fprintf(stderr, "xos: %s\n", e.what());
        return status_failed;
    }
    return result.status;
}
