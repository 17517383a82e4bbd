"""A hook for schemathesis: the body of a tus upload is bytes, by another name."""

import schemathesis

schemathesis.serializer.alias("application/offset+octet-stream", "application/octet-stream")
