# Installs Debian's Chromium for the test of the report page; sourced by run_tests.sh.
#
# Only where no browser is found, apt is there and we are root, as in a container.  The download has a minute, the
# installation itself is never cut off, and nothing here fails: without a browser that one test is skipped.

has_browser() { command -v chromium || command -v chromium-browser || command -v google-chrome; }

install_browser() {
    local started=$SECONDS get="apt-get -qq -y --no-install-recommends"
    echo "browser: installing Chromium for the report's test (--no-browser leaves it out)"
    { timeout 30 apt-get -qq update; timeout 60 $get install --download-only chromium &&
        DEBIAN_FRONTEND=noninteractive $get install --no-download chromium; } >/dev/null 2>&1
    if has_browser >/dev/null; then echo "browser: installed in $(elapsed $started)"; else echo "browser: none could be installed"; fi
}

if ! has_browser >/dev/null && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null && [ -f /etc/debian_version ]; then
    install_browser
fi
