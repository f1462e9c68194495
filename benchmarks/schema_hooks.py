"""Sound for schemathesis: whole and broken files, wherever OpenAPI says that bytes may come."""

from __future__ import annotations

import schemathesis
from hypothesis import strategies as st

from mutations import iter_uploads, seeds

_files = st.sampled_from(seeds())
_broken = st.sampled_from([upload.body for upload in iter_uploads(300, seed=7)])

schemathesis.openapi.media_type("audio/*", _files | _broken | st.binary())
schemathesis.openapi.media_type("application/octet-stream", _files | _broken | st.binary())
