// Streams a model's answer: example MODEL.gguf [QUESTION]
#include <rocmforge.hpp>

#include <iostream>

int main(int argc, char **argv) try {
    if (argc < 2) return std::cerr << "usage: " << argv[0] << " MODEL.gguf [QUESTION]\n", 2;
    const rocmforge::Engine engine;
    const rocmforge::Model model = engine.load(argv[1]);
    rocmforge::SessionOptions options;
    options.context = 2048;
    rocmforge::Session session = model.session(options);

    rocmforge::GenerateOptions generate;
    generate.max_tokens = 256;
    const char *question = argc > 2 ? argv[2] : "In which city is the Eiffel Tower?";
    for (const rocmforge::Piece &piece : session.chat({{"user", question}}, generate)) {
        std::cout << piece.text << std::flush;
    }
    std::cout << '\n';
    return 0;
} catch (const rocmforge::Error &error) {
    std::cerr << error.what() << '\n';
    return 1;
}
