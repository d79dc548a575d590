"""The Chromium that is there already, and how it is started."""

import os
import shutil

PATH = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
ARGUMENTS = ["--no-sandbox", "--disable-gpu"]
