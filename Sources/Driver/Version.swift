/// The version of mcc, as `mcc --version` and manifests say it.
package enum Version {
  package static let number = "0.1.0"
}
