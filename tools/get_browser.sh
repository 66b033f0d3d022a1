#!/usr/bin/env bash
# Install Debian's chromium where it is missing and can be had. Never fails: tests that need it skip with a reason.
if command -v chromium chromium-browser google-chrome >/dev/null; then exit 0; fi
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >/dev/null && exit 0
fi
echo "No chromium here and no way to install it: the screenshot tests will be skipped."
