# Installs Debian's Chromium for the test of the report page; run_tests.sh runs it beside the Python installation.
#
# Only where no browser is found, apt is there and we are root, as in a container.  The download has a minute, the
# installation itself is never cut off, and nothing here fails: without a browser that one test is skipped.

has_browser() { command -v chromium || command -v chromium-browser || command -v google-chrome; }

install_browser() {
    local get="apt-get -qq -y --no-install-recommends"
    SECONDS=0
    { timeout 30 apt-get -qq update; timeout 60 $get install --download-only chromium &&
        DEBIAN_FRONTEND=noninteractive $get install --no-download chromium; } >/dev/null 2>&1
    if has_browser >/dev/null; then
        echo "browser: Chromium installed in $SECONDS s, for the report's test (--no-browser leaves it out)"
    else
        echo "browser: none could be installed; the report's test is skipped"
    fi
}

if ! has_browser >/dev/null && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null && [ -f /etc/debian_version ]; then
    install_browser
fi
