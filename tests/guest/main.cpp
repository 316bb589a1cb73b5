// Runs every selected test case in a process of its own.
//
//     xos-guest-test [--xos-mode=auto|ring0|ring3|pvm] [--xos-transport=auto|exit|module]
//                    [--xos-native-children] [Catch2's options and test names]
//
// A test that crashes or hangs is one failed test, and a test may use the cell in any way.
#define CATCH_CONFIG_NO_POSIX_SIGNALS
#define CATCH_CONFIG_RUNNER
#include <poll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>

#include "tests/guest/support.hpp"

namespace xos::test {

namespace {

mode wanted = mode::automatic;
transport wanted_way = transport::automatic;
bool late_vms = false;
/// One that takes longer hangs: the slowest takes ten, emulated and beside other work. XOS_SOAK has
/// tests that soak run for so many seconds.
int seconds_for_one_test() {
    const char* soak = getenv("XOS_SOAK");
    return 60 + (soak ? 2 * atoi(soak) : 0);
}

bool take_mode(const std::string& value) {
    for (mode m : {mode::automatic, mode::ring0, mode::ring3, mode::pvm}) {
        if (value == name(m)) return wanted = m, true;
    }
    return false;
}

bool take_transport(const std::string& value) {
    for (transport t : {transport::automatic, transport::exit, transport::module}) {
        if (value == name(t)) return wanted_way = t, true;
    }
    return false;
}

/// The value of `--NAME=`, or null.
const char* value_of(const char* argument, const std::string& option) {
    return strncmp(argument, option.c_str(), option.size()) == 0 ? argument + option.size()
                                                                 : nullptr;
}

[[noreturn]] void run_in_this_process(Catch::Session& session, const std::string& test) {
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    Catch::ConfigData data = session.configData();
    // A comma would separate two names.
    std::string pattern;
    for (char c : test) pattern += c == ',' ? std::string("\\,") : std::string(1, c);
    data.testsOrTags = {"\"" + pattern + "\""};
    data.warnings = static_cast<Catch::WarnAbout::What>(data.warnings | Catch::WarnAbout::NoTests);
    if (data.reporterName == "console") data.reporterName = "compact";
    session.useConfigData(data);
    const int failed = session.run();
    fflush(nullptr);
    _exit(failed ? 1 : 0);
}

/// Processes that are to end by a signal leave no file behind, and end in the same words
/// everywhere.
void write_no_cores() {
    rlimit cores{};
    getrlimit(RLIMIT_CORE, &cores);
    cores.rlim_cur = 0;
    setrlimit(RLIMIT_CORE, &cores);
}

/// "" when the test passed.
std::string run(Catch::Session& session, const std::string& test) {
    fflush(nullptr);
    const int pid = fork();
    if (pid == 0) run_in_this_process(session, test);
    const int handle = static_cast<int>(syscall(SYS_pidfd_open, pid, 0));
    pollfd wait{handle, POLLIN, 0};
    const bool hung = poll(&wait, 1, seconds_for_one_test() * 1000) == 0;
    close(handle);
    kill(-pid, SIGKILL);  // also what the test left behind
    int status = 0;
    waitpid(pid, &status, 0);
    if (hung) return "hung";
    return status == 0 ? "" : describe(status);
}

int run_all(Catch::Session& session) {
    Catch::IConfigPtr config = std::make_shared<Catch::Config>(session.configData());
    // The registry sorts by what the current context says.
    Catch::getCurrentMutableContext().setConfig(config);
    const auto& registered = Catch::getAllTestCasesSorted(*config);
    unsigned passed = 0;
    lines failed;
    for (const auto& test : Catch::filterTests(registered, config->testSpec(), *config)) {
        const auto begin = std::chrono::steady_clock::now();
        const std::string result = run(session, test.name);
        const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
        printf("%-6s %5.2f s  %s%s%s\n", result.empty() ? "ok" : "FAILED", took.count(),
               test.name.c_str(), result.empty() ? "" : ": ", result.c_str());
        if (result.empty())
            passed++;
        else
            failed.push_back(test.name + ": " + result);
    }
    if (passed + failed.size() == 0) {
        fprintf(stderr, "xos-guest-test: no test has such a name\n");
        return 2;
    }
    printf("%s: %u passed, %zu failed\n", name(wanted), passed, failed.size());
    for (const auto& line : failed) printf("  %s\n", line.c_str());
    return failed.empty() ? 0 : 1;
}

}  // namespace

mode wanted_mode() {
    return wanted;
}

transport wanted_transport() {
    return wanted_way;
}

bool wants_native_children() {
    return late_vms;
}

}  // namespace xos::test

int main(int argc, char** argv) {
    using namespace xos::test;
    std::vector<char*> rest;
    for (int i = 0; i < argc; i++) {
        const char* mode = value_of(argv[i], "--xos-mode=");
        const char* transport = value_of(argv[i], "--xos-transport=");
        if (strcmp(argv[i], "--xos-native-children") == 0) {
            late_vms = true;
        } else if (!mode && !transport) {
            rest.push_back(argv[i]);
        } else if (mode ? !take_mode(mode) : !take_transport(transport)) {
            fprintf(stderr, "xos-guest-test: unknown value in %s\n", argv[i]);
            return 2;
        }
    }
    Catch::Session session;
    if (session.applyCommandLine(static_cast<int>(rest.size()), rest.data())) return 2;
    const Catch::ConfigData& data = session.configData();
    if (data.listTests || data.listTags || data.listTestNamesOnly || data.showHelp)
        return session.run();
    write_no_cores();
    return run_all(session);
}
