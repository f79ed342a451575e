//! The `CustomResourceDefinition`, as it is shipped in `crds/`.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray,
};
use kube::CustomResourceExt as _;

use super::MapLatencyProbe;

/// The definition of the resource.
///
/// Generated from the types, then put in line with the API conventions where the generator differs: an absent
/// field is absent and never null, and integers are signed without a floating-point bound.
pub fn definition() -> CustomResourceDefinition {
    let mut crd = MapLatencyProbe::crd();
    for version in &mut crd.spec.versions {
        if let Some(schema) = version
            .schema
            .as_mut()
            .and_then(|it| it.open_api_v3_schema.as_mut())
        {
            conform(schema);
            describe(schema);
        }
    }
    crd
}

/// The derive describes the spec with the documentation of the resource, and the resource with its own.
fn describe(schema: &mut JSONSchemaProps) {
    schema.title = None;
    let spec = schema
        .properties
        .as_mut()
        .and_then(|it| it.get_mut("spec"))
        .expect("a resource has a spec");
    schema.description = spec
        .description
        .replace("What to measure, and where.".to_owned());
}

fn conform(schema: &mut JSONSchemaProps) {
    schema.nullable = None;
    for property in schema.properties.iter_mut().flat_map(|it| it.values_mut()) {
        conform(property);
    }
    match &mut schema.items {
        Some(JSONSchemaPropsOrArray::Schema(item)) => conform(item),
        Some(JSONSchemaPropsOrArray::Schemas(items)) => items.iter_mut().for_each(conform),
        None => (),
    }
}
