//! Streaming decoders and encoders between bytes and record batches.
