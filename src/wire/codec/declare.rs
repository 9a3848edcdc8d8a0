//! The macro that declares a struct together with its layout, so that the two cannot part.

/// Declares a public struct whose layout is its fields, in order. Every field's type has a [`Codec`](super::Codec).
macro_rules! layout {
    ($(
        $(#[$meta:meta])*
        pub struct $name:ident {
            $($(#[$field_meta:meta])* pub $field:ident: $type:ty,)*
        }
    )+) => {$(
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $name {
            $($(#[$field_meta])* pub $field: $type,)*
        }

        #[allow(unused_variables, reason = "a body may have no field")]
        impl $crate::codec::Codec for $name {
            const BYTES_MIN: usize = 0 $(+ <$type as $crate::codec::Codec>::BYTES_MIN)*;

            fn encode(&self, out: &mut ::bytes::BytesMut) {
                $($crate::codec::Codec::encode(&self.$field, out);)*
            }

            fn decode(
                reader: &mut $crate::codec::Reader<'_>,
            ) -> ::std::result::Result<Self, $crate::codec::DecodeError> {
                Ok(Self {
                    $($field: <$type as $crate::codec::Codec>::decode(reader)
                        .map_err(|error| error.in_field(concat!(stringify!($name), ".", stringify!($field))))?,)*
                })
            }
        }

        #[cfg(test)]
        impl $crate::codec::sample::Sample for $name {
            fn sample() -> ::proptest::strategy::BoxedStrategy<Self> {
                use ::proptest::strategy::Strategy;
                // The first element keeps the tuple a strategy where there is no field.
                (::proptest::strategy::Just(()), $(<$type as $crate::codec::sample::Sample>::sample(),)*)
                    .prop_map(|((), $($field,)*)| Self { $($field),* })
                    .boxed()
            }
        }

        #[cfg(test)]
        #[allow(unused_variables, reason = "a body may have no field")]
        impl $crate::codec::described::Described for $name {
            fn type_name() -> String {
                stringify!($name).to_owned()
            }

            fn fields() -> Vec<(&'static str, String)> {
                vec![$((stringify!($field), <$type as $crate::codec::described::Described>::type_name()),)*]
            }

            fn from_json(json: &::serde_json::Value) -> Self {
                let names = [$(stringify!($field),)*] as [&str; _];
                let given = json.as_object().expect("an object of the struct's fields");
                assert!(given.keys().all(|name| names.contains(&name.as_str())), "{json} has other fields than {names:?}");
                Self { $($field: $crate::codec::described::Described::from_json(&json[stringify!($field)]),)* }
            }
        }
    )+};
}

pub(crate) use layout;
