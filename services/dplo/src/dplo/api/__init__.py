"""The contract's face: servicers and converters. Protobuf begins and ends here."""
