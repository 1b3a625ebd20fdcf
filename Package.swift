// swift-tools-version: 6.1
import PackageDescription

/// One row of the target table: name, folder, dependencies.
struct Row {
  var name: String
  var path: String
  var dependencies: [Target.Dependency] = []
  var resources: [Resource] = []
  var exclude: [String] = []
}

let collections: Target.Dependency = .product(name: "Collections", package: "swift-collections")

let systemLibraries: [Target] = [
  .systemLibrary(name: "CJSON", pkgConfig: "json-c", providers: [.apt(["libjson-c-dev"])]),
  .systemLibrary(name: "CZstd", pkgConfig: "libzstd", providers: [.apt(["libzstd-dev"])]),
  .systemLibrary(name: "CZlib", pkgConfig: "zlib", providers: [.apt(["zlib1g-dev"])]),
  .systemLibrary(name: "COpenBLAS", pkgConfig: "openblas", providers: [.apt(["libopenblas-dev"])]),
]

// Base <- Tensors <- IR <- { Formats, Passes, CodeGen } <- Driver <- mcc
let libraries: [Row] = [
  Row(name: "Base", path: "Sources/Base", dependencies: ["CJSON", "CZstd", "CZlib"]),
  Row(name: "Tensors", path: "Sources/Tensors", dependencies: ["Base", "COpenBLAS"]),
  Row(name: "IR", path: "Sources/IR", dependencies: ["Base", "Tensors", collections]),
  Row(
    name: "Formats", path: "Formats",
    dependencies: ["Base", "Tensors", "IR", collections, .product(name: "SwiftProtobuf", package: "swift-protobuf")]),
  Row(name: "Passes", path: "Passes", dependencies: ["Base", "Tensors", "IR", collections]),
  Row(
    name: "CodeGen", path: "Sources/CodeGen",
    dependencies: ["Base", "Tensors", "IR", collections, .product(name: "Subprocess", package: "swift-subprocess")],
    resources: [.embedInCode("Runtime")]),
  Row(name: "Driver", path: "Sources/Driver", dependencies: ["Base", "Tensors", "IR", "Formats", "Passes", "CodeGen"]),
  Row(
    name: "TestSupport", path: "Tests/TestSupport",
    dependencies: ["Base", "Tensors", "IR", "Formats"]),
]

let tests: [Row] = [
  Row(name: "TensorsTests", path: "Tests/TensorsTests", dependencies: ["Base", "Tensors", "TestSupport"]),
  Row(
    name: "IRTests", path: "Tests/IRTests", dependencies: ["Base", "Tensors", "IR", "TestSupport"],
    exclude: ["Fixtures"]),
  Row(
    name: "PassesTests", path: "Tests/PassesTests",
    dependencies: ["Base", "Tensors", "IR", "Formats", "Passes", "TestSupport"], exclude: ["Cases"]),
  Row(
    name: "FormatsTests", path: "Tests/FormatsTests", dependencies: ["Base", "Tensors", "IR", "Formats", "TestSupport"]),
  Row(
    name: "CodeGenTests", path: "Tests/CodeGenTests", dependencies: ["Base", "Tensors", "IR", "CodeGen", "TestSupport"]),
  Row(
    name: "EndToEndTests", path: "Tests/EndToEndTests",
    dependencies: ["Base", "Tensors", "IR", "Formats", "Passes", "CodeGen", "Driver", "mcc", "TestSupport"],
    exclude: ["Fixtures"]),
]

let package = Package(
  name: "mcc",
  products: [.executable(name: "mcc", targets: ["mcc"])],
  dependencies: [
    .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
    .package(url: "https://github.com/apple/swift-collections", from: "1.6.0"),
    .package(url: "https://github.com/apple/swift-protobuf", from: "1.39.0"),
    .package(url: "https://github.com/swiftlang/swift-subprocess", from: "1.0.2"),
  ],
  targets: systemLibraries
    + libraries.map {
      .target(name: $0.name, dependencies: $0.dependencies, path: $0.path, exclude: $0.exclude, resources: $0.resources)
    }
    + [
      .executableTarget(
        name: "mcc",
        dependencies: ["Base", "Driver", .product(name: "ArgumentParser", package: "swift-argument-parser")],
        path: "Sources/mcc")
    ]
    + tests.map { .testTarget(name: $0.name, dependencies: $0.dependencies, path: $0.path, exclude: $0.exclude) },
  swiftLanguageModes: [.v6]
)
