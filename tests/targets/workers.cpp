// build: g++ -O2 -g -pthread workers.cpp
// Threads, strings, maps, streams, exceptions, futures: each line of standard input is a seed, and
// its answer one line that depends on the seed alone. Ends with its input.
#include <algorithm>
#include <condition_variable>
#include <deque>
#include <future>
#include <iomanip>
#include <iostream>
#include <map>
#include <memory>
#include <mutex>
#include <numeric>
#include <random>
#include <regex>
#include <set>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

namespace {

using Number = unsigned long long;

Number mix(Number sum, Number value)
{
    return (sum ^ value) * 1099511628211ull;
}

Number of_text(const std::string &text)
{
    return std::accumulate(text.begin(), text.end(), 14695981039346656037ull,
                           [](Number sum, char c) { return mix(sum, Number(c)); });
}

struct Refused : std::runtime_error {
    explicit Refused(int which) : std::runtime_error("refused " + std::to_string(which)) {}
};

int deeper(std::mt19937_64 &chance, int depth)
{
    if (depth == 0)
        throw Refused(int(chance() % 100));
    try {
        return deeper(chance, depth - 1) + 1;
    } catch (const Refused &) {
        if (chance() % 3)
            throw;
        return depth;
    }
}

Number containers(std::mt19937_64 &chance)
{
    std::map<std::string, std::vector<int>> sorted;
    std::unordered_map<Number, std::shared_ptr<std::string>> hashed;
    std::set<std::pair<int, std::string>> pairs;
    for (int i = 0; i < 400; i++) {
        std::string name = "name" + std::to_string(chance() % 97);
        sorted[name].push_back(i);
        hashed[chance() % 151] = std::make_shared<std::string>(name + name);
        pairs.insert({int(chance() % 31), name});
    }
    Number sum = sorted.size() * 1000 + pairs.size();
    for (const auto &[name, places] : sorted)
        sum = mix(sum, of_text(name) + Number(places.back()) + places.size());
    for (Number key = 0; key < 151; key++)
        if (auto found = hashed.find(key); found != hashed.end())
            sum = mix(sum, of_text(*found->second));
    return sum;
}

Number texts(std::mt19937_64 &chance)
{
    std::ostringstream out;
    for (int i = 0; i < 60; i++)
        out << std::setw(7) << std::hex << chance() % 4096 << ' ' << std::fixed
            << std::setprecision(3) << double(chance() % 10000) / 7 << std::endl;
    std::istringstream in(out.str());
    std::string word;
    Number sum = 0;
    while (in >> word)
        sum = mix(sum, of_text(word));
    static const std::regex digits("([0-9a-f]+)[ .]([0-9]+)");
    std::string text = out.str();
    for (std::sregex_iterator i(text.begin(), text.end(), digits), end; i != end; ++i)
        sum = mix(sum, of_text((*i)[1].str()));
    return sum;
}

Number thrown(std::mt19937_64 &chance)
{
    Number sum = 0;
    for (int i = 0; i < 40; i++) {
        try {
            sum = mix(sum, Number(deeper(chance, 1 + int(chance() % 12))));
        } catch (const std::exception &error) {
            sum = mix(sum, of_text(error.what()));
        }
    }
    return sum;
}

// Numbers go through a bounded queue from one thread to another.
Number queued(Number seed)
{
    std::mutex mutex;
    std::condition_variable changed;
    std::deque<Number> queue;
    auto taken = std::async(std::launch::async, [&] {
        Number sum = 0;
        for (int i = 0; i < 500; i++) {
            std::unique_lock<std::mutex> lock(mutex);
            changed.wait(lock, [&] { return !queue.empty(); });
            sum = mix(sum, queue.front());
            queue.pop_front();
            changed.notify_all();
        }
        return sum;
    });
    for (int i = 0; i < 500; i++) {
        std::unique_lock<std::mutex> lock(mutex);
        changed.wait(lock, [&] { return queue.size() < 16; });
        queue.push_back(seed + Number(i));
        changed.notify_all();
    }
    return taken.get();
}

Number worker(Number seed)
{
    std::mt19937_64 chance(seed);
    Number sum = containers(chance);
    sum = mix(sum, texts(chance));
    sum = mix(sum, thrown(chance));
    std::vector<Number> numbers(2000);
    std::generate(numbers.begin(), numbers.end(), std::ref(chance));
    std::stable_sort(numbers.begin(), numbers.end());
    sum = mix(sum, numbers[numbers.size() / 2]);
    return mix(sum, queued(seed));
}

Number answer(Number seed)
{
    std::vector<Number> sums(4);
    std::vector<std::thread> threads;
    for (Number i = 0; i < sums.size(); i++)
        threads.emplace_back([&sums, i, seed] { sums[i] = worker(seed * 31 + i); });
    for (auto &thread : threads)
        thread.join();
    return std::accumulate(sums.begin(), sums.end(), Number(0), mix);
}

} // namespace

int main()
{
    std::cout << "READY" << std::endl;
    for (Number seed; std::cin >> seed;)
        std::cout << seed << ' ' << answer(seed) << std::endl;
}
