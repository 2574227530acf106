//! What runs inside.

mod machine;
