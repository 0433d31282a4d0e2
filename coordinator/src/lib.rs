//! The coordinator: adds up what devices contribute without reading any one of them.
