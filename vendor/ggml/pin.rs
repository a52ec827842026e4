//! Holds a place: Cargo wants a target in every manifest, and this one only pins a source.
