import Base
import IR

extension GenerationSettings {
  /// The settings of `generation_config.json`, where it says nothing those of `config.json`.
  ///
  /// Token ids must be below `vocabulary`. Absent keys mean: no sampling, temperature 1, no limits, no penalty.
  init(generation: JSONField?, config: JSONField, vocabulary: Int) throws {
    self.init()
    let places = [generation, config].compactMap { $0 }
    func first(_ key: String) -> JSONField? { places.lazy.map { $0[key] }.first { $0.exists } }
    // The decoder of a network with an encoder begins with a token of its own.
    let start = try config["is_encoder_decoder"].bool(or: false) ? first("decoder_start_token_id") : nil
    if let field = start ?? first("bos_token_id") { beginID = try field.int(in: 0...max(vocabulary - 1, 0)) }
    if let field = first("eos_token_id") {
      let fields = field.value?.array == nil ? [field] : try field.elements()
      // -1 stands for none in some configurations.
      endIDs = try fields.filter { try $0.int() != -1 }.map { try $0.int(in: 0...max(vocabulary - 1, 0)) }
      guard endIDs.count <= 16 else {
        throw field.failure("'eos_token_id' has \(endIDs.count) ids, at most 16 are allowed")
      }
    }
    guard let generation else { return }
    func number(_ key: String, _ fallback: Float, _ range: ClosedRange<Double>) throws -> Float {
      guard let value = try generation[key].optionalDouble() else { return fallback }
      guard range.contains(value) else {
        throw generation.failure("'\(key)' is \(value), expected \(range.lowerBound) to \(range.upperBound)")
      }
      return Float(value)
    }
    samples = try generation["do_sample"].bool(or: false)
    temperature = try number("temperature", 1, 0...1000)
    topP = try number("top_p", 1, 0...1)
    repeatPenalty = try number("repetition_penalty", 1, 0.001...1000)
    if generation["top_k"].exists { topK = try generation["top_k"].int(in: 0...Int(Int32.max)) }
  }
}
