//! What runs inside.

mod machine;
mod qos;
mod switch;
