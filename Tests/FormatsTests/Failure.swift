import Base
import Testing

/// Expects a `CompileError` of the given kind whose whole text contains all `parts`.
func expectFailure(
  _ kind: CompileError.Kind = .input, _ parts: String..., sourceLocation: SourceLocation = #_sourceLocation,
  _ body: () throws -> Void
) {
  do {
    try body()
    Issue.record("accepted, expected an error with \(parts)", sourceLocation: sourceLocation)
  } catch let error as CompileError {
    #expect(error.kind == kind, "\(error)", sourceLocation: sourceLocation)
    for part in parts {
      #expect(error.description.contains(part), "'\(error)' lacks '\(part)'", sourceLocation: sourceLocation)
    }
    #expect(!error.message.hasSuffix("."), sourceLocation: sourceLocation)
  } catch {
    Issue.record("threw \(error)", sourceLocation: sourceLocation)
  }
}
